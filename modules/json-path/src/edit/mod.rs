//! Changes to a document, named by paths and made in one pass: fields are selected, removed, renamed and set.
//!
//! What no change touches is copied byte for byte and stays in its order. An object or array in which something may change
//! is written without spaces between its members.

mod apply;
mod node;

use crate::path::{Path, Step};
use node::{Node, Rename};

/// Steps of a path, and changes below one value, at most.
const STEPS_MAX: usize = 64;
const CHANGES_MAX: usize = 64;

/// What is wrong with the changes that were asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// More than an object's bit set holds, or deeper than it is reasonable to go.
    #[error("a path has at most {STEPS_MAX} steps, and one object at most {CHANGES_MAX} fields to change")]
    TooMany,
    /// `[*]` and `[0]` of one array.
    #[error("{0:?}: an array is changed either in every element [*] or in some [0], not both")]
    Elements(String),
    /// Two changes of one field exclude each other.
    #[error("field {0:?} is changed in two ways that exclude each other")]
    Conflict(String),
    /// The change cannot be made to what the path names.
    #[error("{0} names no field of an object")]
    NoField(&'static str),
}

/// Why changes could not be made to a document.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not JSON.
    #[error("the value is not JSON: {0}")]
    Invalid(#[from] serde_json::Error),
    /// A field is to be set in something that has no fields.
    #[error("{0:?} is no object, so no field of it can be set")]
    NoObject(String),
    /// A field gets the name that another one has.
    #[error("a field is renamed to {0:?}, and there is one of that name already")]
    Twice(String),
}

/// Changes, ready to be made together. Paths name fields as they are called in the document that comes in.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    root: Node,
    selects: bool,
    /// Fields that are renamed or set: they are selected wherever something is.
    changed: Vec<Path>,
}

impl Edit {
    /// Of the object that holds it, and of those around it, only selected fields stay.
    ///
    /// # Errors
    /// The changes exclude each other.
    pub fn select(&mut self, path: &Path) -> Result<(), EditError> {
        if !self.selects {
            self.selects = true;
            for changed in std::mem::take(&mut self.changed) {
                self.mark_selected(&changed)?;
            }
        }
        self.mark_selected(path)
    }

    /// What the path names goes, name and all.
    ///
    /// # Errors
    /// The changes exclude each other, or the path names the whole document.
    pub fn remove(&mut self, path: &Path) -> Result<(), EditError> {
        if path.steps.is_empty() {
            return Err(EditError::NoField("the path of what is removed"));
        }
        let node = self.root.at(&path.steps)?;
        if node.set.is_some() || node.rename.is_some() {
            return Err(conflict(path));
        }
        node.removed = true;
        Ok(())
    }

    /// The field gets another name and keeps its place.
    ///
    /// # Errors
    /// The changes exclude each other, or the path does not end in a name.
    pub fn rename(&mut self, path: &Path, name: &str) -> Result<(), EditError> {
        let Some((Step::Name(_), object)) = path.steps.split_last() else {
            return Err(EditError::NoField("the path of what is renamed"));
        };
        let parent = self.root.at(object)?;
        if parent
            .members
            .iter()
            .any(|(member, node)| member == name && node.set.is_some())
        {
            return Err(EditError::Conflict(name.to_owned()));
        }
        let target = parent.target(name)?;
        let node = self.root.at(&path.steps)?;
        if node.removed || node.rename.is_some() {
            return Err(conflict(path));
        }
        let json = serde_json::Value::from(name).to_string();
        node.rename = Some(Rename { json, target });
        self.note_changed(path)
    }

    /// The field gets the value of that number, whether it is there or not; objects around it come into being.
    ///
    /// # Errors
    /// The changes exclude each other, or the path does not end in a name.
    pub fn set(&mut self, path: &Path, value: usize) -> Result<(), EditError> {
        let Some((Step::Name(name), object)) = path.steps.split_last() else {
            return Err(EditError::NoField("the path of what is set"));
        };
        if self.root.at(object)?.targets.contains(name) {
            return Err(conflict(path));
        }
        let node = self.root.at(&path.steps)?;
        if node.removed || node.set.is_some() || node.has_below() {
            return Err(conflict(path));
        }
        node.set = Some(value);
        self.note_changed(path)
    }

    fn note_changed(&mut self, path: &Path) -> Result<(), EditError> {
        if self.selects {
            return self.mark_selected(path);
        }
        self.changed.push(path.clone());
        Ok(())
    }

    fn mark_selected(&mut self, path: &Path) -> Result<(), EditError> {
        self.root.at(&path.steps)?.selected = true;
        if let Some((_, object)) = path.steps.split_last() {
            self.root.on_the_way(object, |node| node.selects_below = true);
        }
        Ok(())
    }
}

fn conflict(path: &Path) -> EditError {
    EditError::Conflict(match path.steps.last() {
        Some(Step::Name(name)) => name.clone(),
        Some(Step::Index(index)) => format!("[{index}]"),
        Some(Step::Every) | None => "[*]".to_owned(),
    })
}
