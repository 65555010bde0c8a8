//! Typed parameters: what a stage sets as `name=value` text, as a struct.

/// What the broker learns of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name it is set by.
    pub name: String,
    /// `string`, `bool`, `int`, `float`, or the allowed words with `|` between.
    pub kind: String,
    /// What holds when it is not set.
    pub default: Option<String>,
    /// It must be set.
    pub required: bool,
    /// What it is for.
    pub doc: String,
}

impl Param {
    /// Describes a parameter of type `T`.
    pub fn of<T: ParamValue>(name: &str, default: Option<&str>, doc: &str) -> Self {
        Self {
            name: name.to_owned(),
            kind: T::KIND.to_owned(),
            default: default.map(str::to_owned),
            required: default.is_none() && T::absent().is_none(),
            doc: doc.to_owned(),
        }
    }
}

/// A struct of parameters. Derive it: each field is a parameter, its doc comment the description.
///
/// `#[param(default = "...")]` gives a default; a field that has none must be set, unless it is an `Option`.
/// `#[param(name = "...")]` gives another name than the field's.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a struct of parameters",
    label = "not a struct of parameters",
    note = "add `#[derive(Params)]` to the struct, or implement `Prepare` to make it out of one that has it"
)]
pub trait Params: Sized + 'static {
    /// All parameters, in the order of the fields.
    fn describe() -> Vec<Param>;

    /// Reads what a stage sets.
    ///
    /// # Errors
    /// Says which parameter is unknown, missing, set twice or not of its kind.
    fn parse(given: &[(String, String)]) -> Result<Self, String>;
}

/// A module without parameters.
impl Params for () {
    fn describe() -> Vec<Param> {
        Vec::new()
    }

    fn parse(given: &[(String, String)]) -> Result<Self, String> {
        Given::new(given, &[]).map(drop)
    }
}

/// A type that a parameter can have: `String`, `bool`, whole numbers, `f64`, `Option` of them, and any enum of words with
/// `#[derive(Choice)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type that a parameter can have",
    note = "use `String`, `bool`, `i64`, `u64`, `f64`, an `Option` of them, or an enum with `#[derive(Choice)]`"
)]
pub trait ParamValue: Sized {
    /// The kind, as the broker shows it.
    const KIND: &'static str;

    /// Reads the text that a stage sets.
    ///
    /// # Errors
    /// Says what was expected.
    fn parse(text: &str) -> Result<Self, String>;

    /// The value when it is neither set nor has a default; `None` where it must be set.
    fn absent() -> Option<Self> {
        None
    }
}

impl ParamValue for String {
    const KIND: &'static str = "string";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl ParamValue for bool {
    const KIND: &'static str = "bool";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("{text:?} is neither true nor false"))
    }
}

impl ParamValue for f64 {
    const KIND: &'static str = "float";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| format!("{text:?} is not a number"))
    }
}

macro_rules! whole_numbers {
    ($($type:ty),*) => {$(
        impl ParamValue for $type {
            const KIND: &'static str = "int";

            fn parse(text: &str) -> Result<Self, String> {
                text.parse()
                    .map_err(|_| format!("{text:?} is not a whole number from {} to {}", <$type>::MIN, <$type>::MAX))
            }
        }
    )*};
}

whole_numbers!(i64, u64, i32, u32, usize);

impl<T: ParamValue> ParamValue for Option<T> {
    const KIND: &'static str = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// What a stage sets, checked against the parameters there are. What `derive(Params)` generates reads from it.
#[derive(Debug)]
pub struct Given<'a> {
    values: &'a [(String, String)],
}

impl<'a> Given<'a> {
    /// Takes what a stage sets.
    ///
    /// # Errors
    /// Names a parameter that is unknown or set twice.
    pub fn new(values: &'a [(String, String)], known: &[Param]) -> Result<Self, String> {
        for (index, (name, _)) in values.iter().enumerate() {
            if !known.iter().any(|param| param.name == *name) {
                return Err(unknown(name, known));
            }
            if values[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(format!("parameter {name:?} is set twice"));
            }
        }
        Ok(Self { values })
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// It is missing, or not of its kind.
    pub fn value<T: ParamValue>(&self, name: &str, default: Option<&str>) -> Result<T, String> {
        let given = self
            .values
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str());
        match given.or(default) {
            Some(text) => T::parse(text).map_err(|error| format!("parameter {name:?}: {error}")),
            None => T::absent().ok_or_else(|| format!("parameter {name:?} is missing ({})", T::KIND)),
        }
    }
}

/// How alike two names must be, from 0 to 1, for one to be offered in place of the other.
const LIKENESS_MIN: f64 = 0.7;

fn unknown(name: &str, known: &[Param]) -> String {
    if known.is_empty() {
        return format!("unknown parameter {name:?}: this module takes none");
    }
    let nearest = known
        .iter()
        .map(|param| (strsim::jaro_winkler(name, &param.name), &param.name))
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    let hint = nearest
        .map(|(_, nearest)| format!(", did you mean {nearest:?}?"))
        .unwrap_or_default();
    let names: Vec<&str> = known.iter().map(|param| param.name.as_str()).collect();
    format!(
        "unknown parameter {name:?}{hint} (this module takes {})",
        names.join(", ")
    )
}
