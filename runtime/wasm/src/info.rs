//! What a module says of itself.

use std::collections::BTreeSet;

use crate::ModuleError;
use crate::bindings::transform;

/// Longest name of a module, parameter or output, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What a module says of itself, checked: names are not empty, bounded and without control characters, and no two
/// parameters share one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// The module's name.
    pub name: String,
    /// What it does, in a sentence.
    pub summary: String,
    /// What a stage may set.
    pub params: Vec<ParamInfo>,
    /// The outputs it would route to, by name.
    pub outputs: Vec<String>,
}

/// A parameter that a stage may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name.
    pub name: String,
    /// `string`, `bool`, `int`, `float`, or the allowed words with `|` between.
    pub kind: String,
    /// What holds when the stage does not set it.
    pub default: Option<String>,
    /// Whether the stage must set it.
    pub required: bool,
    /// What it does.
    pub doc: String,
}

impl TryFrom<transform::Info> for Info {
    type Error = ModuleError;

    fn try_from(info: transform::Info) -> Result<Info, ModuleError> {
        let info = Info {
            name: info.name,
            summary: info.summary,
            params: info.params.into_iter().map(ParamInfo::from).collect(),
            outputs: info.outputs,
        };
        info.check().map_err(|what| ModuleError::Info { what })?;
        Ok(info)
    }
}

impl Info {
    fn check(&self) -> Result<(), String> {
        check_name("its own name", &self.name)?;
        let mut names = BTreeSet::new();
        for param in &self.params {
            check_name("a parameter's name", &param.name)?;
            if param.kind.is_empty() || param.kind.split('|').any(str::is_empty) {
                return Err(format!("parameter `{}` has the kind `{}`", param.name, param.kind));
            }
            if !names.insert(&param.name) {
                return Err(format!("there are two parameters `{}`", param.name));
            }
        }
        self.outputs
            .iter()
            .try_for_each(|output| check_name("an output's name", output))
    }
}

impl From<transform::Param> for ParamInfo {
    fn from(param: transform::Param) -> ParamInfo {
        ParamInfo {
            name: param.name,
            kind: param.kind,
            default: param.default,
            required: param.required,
            doc: param.doc,
        }
    }
}

fn check_name(what: &str, name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!(
            "{what} is {} bytes long, more than {NAME_BYTES_MAX}",
            name.len()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("{what} has control characters"));
    }
    Ok(())
}
