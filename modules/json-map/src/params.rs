//! Reads the parameters: lists of paths, and of paths with something behind `=`.

use json_path::{Edit, EditError, Path};

use crate::Params;
use crate::source::Source;

/// What is to change.
#[derive(Debug)]
pub struct Plan {
    /// The changes.
    pub edit: Edit,
    /// What fields are set to, by the numbers that `edit` knows.
    pub sources: Vec<Source>,
    /// The fields that others are set to.
    pub paths: Vec<Path>,
}

const WORDS: [(&str, Source); 6] = [
    ("key", Source::Key),
    ("timestamp", Source::Timestamp),
    ("append-time", Source::AppendTime),
    ("offset", Source::Offset),
    ("partition", Source::Partition),
    ("topic", Source::Topic),
];

const EXPECTED: &str = "expected JSON, a text in quotes, a path that begins with $, header('name'), or one of key, \
                        timestamp, append-time, offset, partition, topic";

/// Reads all of them.
///
/// # Errors
/// Says which parameter is wrong, and why; or that there is none.
pub fn read(params: &Params) -> Result<Plan, String> {
    let Params {
        select,
        remove,
        rename,
        set,
        ..
    } = params;
    if [select, remove, rename, set].into_iter().all(Option::is_none) {
        return Err("nothing to change: set \"select\", \"remove\", \"rename\" or \"set\"".to_owned());
    }
    let mut plan = Plan {
        edit: Edit::default(),
        sources: Vec::new(),
        paths: Vec::new(),
    };
    let wrong = |name: &str, error: String| format!("parameter {name:?}: {error}");
    let list = |name: &str, text: &Option<String>| match text {
        Some(text) => Path::parse_list(text).map_err(|error| wrong(name, error.to_string())),
        None => Ok(Vec::new()),
    };
    for path in list("select", select)? {
        plan.edit
            .select(&path)
            .map_err(|error| wrong("select", error.to_string()))?;
    }
    for path in list("remove", remove)? {
        plan.edit
            .remove(&path)
            .map_err(|error| wrong("remove", error.to_string()))?;
    }
    if let Some(text) = rename {
        read_assignments(text, |path, rest| read_rename(&mut plan, path, rest))
            .map_err(|error| wrong("rename", error))?;
    }
    if let Some(text) = set {
        read_assignments(text, |path, rest| read_set(&mut plan, path, rest)).map_err(|error| wrong("set", error))?;
    }
    Ok(plan)
}

/// Calls `read` with each path and with what stands behind its `=`; it returns what it left.
fn read_assignments<'t>(
    text: &'t str,
    mut read: impl FnMut(&Path, &'t str) -> Result<&'t str, String>,
) -> Result<(), String> {
    let mut rest = text;
    loop {
        let at = |rest: &str| text[..text.len() - rest.len()].chars().count() + 1;
        let (path, behind) = Path::parse_prefix(rest.trim_start()).map_err(|error| error.to_string())?;
        let behind = behind.trim_start();
        let value = behind
            .strip_prefix('=')
            .ok_or_else(|| format!("expected = at character {}", at(behind)))?;
        rest = read(&path, value.trim_start())?.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        rest = rest
            .strip_prefix(',')
            .ok_or_else(|| format!("expected a comma or the end at character {}", at(rest)))?;
    }
}

fn read_rename<'t>(plan: &mut Plan, path: &Path, rest: &'t str) -> Result<&'t str, String> {
    let (name, rest) = match quoted(rest) {
        Some(found) => found,
        None => rest.split_at(rest.find([',', ' ']).unwrap_or(rest.len())),
    };
    if name.is_empty() {
        return Err("expected a name behind =".to_owned());
    }
    plan.edit
        .rename(path, name)
        .map_err(|error: EditError| error.to_string())?;
    Ok(rest)
}

fn read_set<'t>(plan: &mut Plan, path: &Path, rest: &'t str) -> Result<&'t str, String> {
    let (source, rest) = read_source(plan, rest)?;
    plan.edit
        .set(path, plan.sources.len())
        .map_err(|error| error.to_string())?;
    plan.sources.push(source);
    Ok(rest)
}

fn read_source<'t>(plan: &mut Plan, text: &'t str) -> Result<(Source, &'t str), String> {
    if text.starts_with('$') {
        let (path, rest) = Path::parse_prefix(text).map_err(|error| error.to_string())?;
        plan.paths.push(path);
        return Ok((Source::Field(plan.paths.len() - 1), rest));
    }
    if let Some((inside, rest)) = quoted(text).filter(|_| text.starts_with('\'')) {
        return Ok((Source::Literal(serde_json::Value::from(inside).to_string()), rest));
    }
    if let Some(rest) = text.strip_prefix("header(") {
        let (name, rest) = quoted(rest).ok_or("expected a name in quotes behind header(")?;
        let rest = rest.strip_prefix(')').ok_or("expected ) behind the name of a header")?;
        return Ok((Source::Header(name.to_owned()), rest));
    }
    let (word, rest) = text.split_at(text.find([',', ' ']).unwrap_or(text.len()));
    if let Some((_, source)) = WORDS.into_iter().find(|(known, _)| *known == word) {
        return Ok((source, rest));
    }
    match json_path::split_value(text) {
        Some((json, rest)) => Ok((Source::Literal(json.to_owned()), rest)),
        None => Err(format!("{EXPECTED}, found {text:?}")),
    }
}

/// What stands in quotes at the front, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    text[1..].split_once(quote)
}
