//! The one pass that makes the changes: it reads the document and writes what becomes of it.

use std::borrow::Cow;
use std::ops::Range;

use super::node::Node;
use super::{ApplyError, Edit};
use crate::scan::Scanner;
use crate::walk::why_invalid;

impl Edit {
    /// Writes the document with the changes made; false where none of them changed anything. `value` gives the JSON of each
    /// value that is set, or `None` where there is none and the field stays as it is.
    ///
    /// # Errors
    /// The document is not JSON, or a change cannot be made to it; what was written by then means nothing.
    pub fn apply<'v>(
        &self,
        document: &[u8],
        value: impl Fn(usize) -> Option<&'v [u8]>,
        into: &mut Vec<u8>,
    ) -> Result<bool, ApplyError> {
        let scanner = Scanner { bytes: document };
        let mut writer = Writer {
            scanner,
            value,
            into,
            changed: false,
        };
        let (first, at) = scanner.peek(0);
        let stop = match writer.write("$", &self.root, !self.selects, first, at) {
            Ok(end) if scanner.is_end(end) => return Ok(writer.changed),
            Ok(_) => Stop::Invalid,
            Err(stop) => stop,
        };
        Err(match stop {
            Stop::Invalid => ApplyError::Invalid(why_invalid(document)),
            Stop::Refused(error) => error,
        })
    }
}

/// Why it does not go on. The scanner says only that, not why.
enum Stop {
    Invalid,
    Refused(ApplyError),
}

struct Writer<'a, 'o, V> {
    scanner: Scanner<'a>,
    value: V,
    into: &'o mut Vec<u8>,
    changed: bool,
}

impl<'a, 'v, V: Fn(usize) -> Option<&'v [u8]>> Writer<'a, '_, V> {
    /// Writes what becomes of the value that begins with this byte, here, and says where it ends. `all` says that what
    /// nobody selected stays. Goes no deeper than the paths have steps.
    fn write(&mut self, name: &str, node: &Node, all: bool, first: u8, at: usize) -> Result<usize, Stop> {
        if let Some(value) = node.set.and_then(&self.value) {
            let end = self.skip(first, at)?;
            self.changed |= &self.scanner.bytes[at..end] != value;
            self.into.extend_from_slice(value);
            return Ok(end);
        }
        match first {
            b'{' if node.has_members() => self.object(node, all || node.selected, at),
            _ if self.creates(node) => {
                self.skip(first, at)?;
                Err(Stop::Refused(ApplyError::NoObject(name.to_owned())))
            }
            b'[' if node.has_elements() => self.array(name, node, all || node.selected, at),
            _ => {
                let end = self.skip(first, at)?;
                self.copy(at..end);
                Ok(end)
            }
        }
    }

    fn object(&mut self, node: &Node, all: bool, start: usize) -> Result<usize, Stop> {
        let mut list = List::open(self.into, b'{');
        let mut seen = 0u64;
        let mut names = Names::default();
        let (mut byte, mut at) = self.scanner.peek(start + 1);
        while byte != b'}' {
            let end = self.scanner.name(byte, at).ok_or(Stop::Invalid)?.get();
            let (quoted_end, is_plain) = self.scanner.plain_string(at);
            let quoted = at..quoted_end.ok_or(Stop::Invalid)?.get();
            let name = self.name(quoted.clone(), is_plain)?;
            let child = node.member(name.as_bytes());
            (byte, at) = self.scanner.peek(end);
            at = if stays(child.map(|(_, child)| child), all, byte) {
                list.next(self.into);
                match child.and_then(|(_, child)| child.rename.as_ref()) {
                    Some(rename) => {
                        self.changed = true;
                        self.into.extend_from_slice(rename.json.as_bytes());
                        names.give(node, rename.target)?;
                    }
                    None => {
                        self.copy(quoted);
                        names.meet(node, &name)?;
                    }
                }
                self.into.push(b':');
                match child {
                    Some((number, child)) => {
                        seen |= 1 << number;
                        self.write(&name, child, all, byte, at)?
                    }
                    None => self.copy_value(byte, at)?,
                }
            } else {
                self.changed = true;
                self.skip(byte, at)?
            };
            (byte, at) = self.behind(at, b'}')?;
        }
        self.create(node, seen, &mut list);
        self.into.push(b'}');
        Ok(at + 1)
    }

    fn array(&mut self, name: &str, node: &Node, all: bool, start: usize) -> Result<usize, Stop> {
        let mut list = List::open(self.into, b'[');
        let (mut byte, mut at) = self.scanner.peek(start + 1);
        let mut index = 0;
        while byte != b']' {
            let child = node.element(index);
            at = if stays(child, all, byte) {
                list.next(self.into);
                match child {
                    Some(child) => self.write(name, child, all, byte, at)?,
                    None => self.copy_value(byte, at)?,
                }
            } else {
                self.changed = true;
                self.skip(byte, at)?
            };
            index += 1;
            (byte, at) = self.behind(at, b']')?;
        }
        self.into.push(b']');
        Ok(at + 1)
    }

    /// What stands behind a member or element: the next one, or what closes. A comma before that is no JSON.
    fn behind(&mut self, end: usize, close: u8) -> Result<(u8, usize), Stop> {
        let (byte, at) = self.scanner.peek(end);
        if byte == close {
            return Ok((byte, at));
        }
        let (next, at) = self.scanner.peek(at + 1);
        if byte == b',' && next != close {
            Ok((next, at))
        } else {
            Err(Stop::Invalid)
        }
    }

    /// Adds the members that are set and were not there.
    fn create(&mut self, node: &Node, seen: u64, list: &mut List) {
        for (number, (name, child)) in node.members.iter().enumerate() {
            if seen & 1 << number != 0 || !self.creates(child) {
                continue;
            }
            list.next(self.into);
            self.changed = true;
            let name = serde_json::Value::from(name.as_str()).to_string();
            self.into.extend_from_slice(name.as_bytes());
            self.into.push(b':');
            match child.set.and_then(&self.value) {
                Some(value) => self.into.extend_from_slice(value),
                None => {
                    let mut inner = List::open(self.into, b'{');
                    self.create(child, 0, &mut inner);
                    self.into.push(b'}');
                }
            }
        }
    }

    /// Whether something is set there that has a value.
    fn creates(&self, node: &Node) -> bool {
        node.set.is_some_and(|number| (self.value)(number).is_some())
            || node.members.iter().any(|(_, child)| self.creates(child))
    }

    fn name(&self, quoted: Range<usize>, is_plain: bool) -> Result<Cow<'a, str>, Stop> {
        let name = if is_plain {
            self.scanner.text(quoted.start + 1..quoted.end - 1).map(Cow::Borrowed)
        } else {
            self.scanner.decoded(quoted)
        };
        name.ok_or(Stop::Invalid)
    }

    fn skip(&self, first: u8, at: usize) -> Result<usize, Stop> {
        Ok(self.scanner.value(first, at).ok_or(Stop::Invalid)?.get())
    }

    fn copy_value(&mut self, first: u8, at: usize) -> Result<usize, Stop> {
        let end = self.skip(first, at)?;
        self.copy(at..end);
        Ok(end)
    }

    fn copy(&mut self, range: Range<usize>) {
        self.into.extend_from_slice(&self.scanner.bytes[range]);
    }
}

/// Whether a value stays. Where only what is selected does, it is selected, or something in it can be.
fn stays(child: Option<&Node>, all: bool, first: u8) -> bool {
    let Some(child) = child else { return all };
    let leads_on = match first {
        b'{' => child.has_members(),
        b'[' => child.has_elements(),
        _ => false,
    };
    !child.removed && (all || child.selected || (child.selects_below && leads_on))
}

/// The names in an object that members get and that others have: a bit for each of the node's `targets`.
#[derive(Default)]
struct Names {
    given: u64,
    met: u64,
}

impl Names {
    /// A member gets that name.
    fn give(&mut self, node: &Node, target: usize) -> Result<(), Stop> {
        if (self.given | self.met) & 1 << target != 0 {
            return Err(twice(&node.targets[target]));
        }
        self.given |= 1 << target;
        Ok(())
    }

    /// A member has that name already.
    fn meet(&mut self, node: &Node, name: &str) -> Result<(), Stop> {
        let Some(target) = node.targets.iter().position(|target| target == name) else {
            return Ok(());
        };
        if self.given & 1 << target != 0 {
            return Err(twice(name));
        }
        self.met |= 1 << target;
        Ok(())
    }
}

fn twice(name: &str) -> Stop {
    Stop::Refused(ApplyError::Twice(name.to_owned()))
}

/// Puts commas between the members of what is written.
struct List {
    is_empty: bool,
}

impl List {
    fn open(into: &mut Vec<u8>, bracket: u8) -> Self {
        into.push(bracket);
        Self { is_empty: true }
    }

    fn next(&mut self, into: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.is_empty, false) {
            into.push(b',');
        }
    }
}
