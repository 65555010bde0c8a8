//! The changes as a tree: a node is a value that a path leads to or through.

use super::{CHANGES_MAX, EditError, STEPS_MAX};
use crate::path::Step;

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) members: Vec<(String, Node)>,
    pub(super) elements: Vec<(usize, Node)>,
    pub(super) every: Option<Box<Node>>,
    /// It stays whole where only what is selected does.
    pub(super) selected: bool,
    /// Something below it is selected.
    pub(super) selects_below: bool,
    pub(super) removed: bool,
    pub(super) rename: Option<Rename>,
    /// The number of the value it is set to.
    pub(super) set: Option<usize>,
    /// The names that members get.
    pub(super) targets: Vec<String>,
}

/// Another name for a member.
#[derive(Clone, Debug)]
pub(super) struct Rename {
    /// The name, in quotes.
    pub(super) json: String,
    /// Its number in the object's `targets`.
    pub(super) target: usize,
}

impl Node {
    /// The node that the steps lead to.
    pub(super) fn at(&mut self, steps: &[Step]) -> Result<&mut Node, EditError> {
        if steps.len() > STEPS_MAX {
            return Err(EditError::TooMany);
        }
        steps.iter().try_fold(self, Node::child)
    }

    fn child(&mut self, step: &Step) -> Result<&mut Node, EditError> {
        // What is set below a field that is set itself would be lost.
        if self.set.is_some() {
            return Err(EditError::Conflict(format!("{step:?}")));
        }
        match step {
            Step::Name(name) => child_of(&mut self.members, name),
            Step::Index(_) if self.every.is_some() => Err(EditError::Elements(format!("{step:?}"))),
            Step::Index(index) => child_of(&mut self.elements, index),
            Step::Every if !self.elements.is_empty() => Err(EditError::Elements("[*]".to_owned())),
            Step::Every => Ok(self.every.get_or_insert_default()),
        }
    }

    /// Calls `mark` for this node and each that the steps, which exist, lead through.
    pub(super) fn on_the_way(&mut self, steps: &[Step], mark: impl Fn(&mut Node)) {
        let mut node = self;
        mark(node);
        for step in steps {
            let Ok(child) = node.child(step) else { return };
            mark(child);
            node = child;
        }
    }

    /// The number of a name that a member gets.
    pub(super) fn target(&mut self, name: &str) -> Result<usize, EditError> {
        if let Some(known) = self.targets.iter().position(|target| target == name) {
            return Ok(known);
        }
        if self.targets.len() == CHANGES_MAX {
            return Err(EditError::TooMany);
        }
        self.targets.push(name.to_owned());
        Ok(self.targets.len() - 1)
    }

    pub(super) fn has_below(&self) -> bool {
        self.has_members() || self.has_elements()
    }

    pub(super) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(super) fn has_elements(&self) -> bool {
        !self.elements.is_empty() || self.every.is_some()
    }

    /// The number and the node of a member.
    pub(super) fn member(&self, name: &[u8]) -> Option<(usize, &Node)> {
        let number = self.members.iter().position(|(member, _)| member.as_bytes() == name)?;
        Some((number, &self.members[number].1))
    }

    pub(super) fn element(&self, index: usize) -> Option<&Node> {
        let exact = || {
            self.elements
                .iter()
                .find(|(number, _)| *number == index)
                .map(|(_, node)| node)
        };
        self.every.as_deref().or_else(exact)
    }
}

fn child_of<'n, K: PartialEq + Clone>(
    children: &'n mut Vec<(K, Node)>,
    key: &(impl ToOwned<Owned = K> + PartialEq<K> + ?Sized),
) -> Result<&'n mut Node, EditError> {
    if let Some(known) = children.iter().position(|(child, _)| key == child) {
        return Ok(&mut children[known].1);
    }
    if children.len() == CHANGES_MAX {
        return Err(EditError::TooMany);
    }
    children.push((key.to_owned(), Node::default()));
    Ok(&mut children.last_mut().expect("it was just put there").1)
}
