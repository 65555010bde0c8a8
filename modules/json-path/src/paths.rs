//! Paths made ready to be looked for together.
//!
//! All steps of all paths are numbered through, and a set of them says which could come next. Entering a value moves the
//! set; a step that is the last of its path names the value.

use crate::block;
use crate::path::{Path, Step};

/// Steps of all paths together, and paths, at most: one bit each.
const STEPS_MAX: usize = 64;

/// A set of steps, or of paths by their numbers.
pub(crate) type Set = u64;

/// Paths, ready to be looked for together.
#[derive(Clone, Debug)]
pub struct Paths {
    steps: Vec<Step>,
    /// How each of them begins.
    heads: Vec<Head>,
    /// The path that each step belongs to.
    path_of: Vec<usize>,
    /// The steps that paths begin with, and those they end with.
    first: Set,
    last: Set,
    /// The paths that name the whole document.
    whole_document: Set,
}

impl Paths {
    /// Makes paths ready; they are numbered as they stand here.
    ///
    /// # Errors
    /// They have more than 64 steps together, or are more than 64.
    pub fn new(paths: &[Path]) -> Result<Self, String> {
        let count: usize = paths.iter().map(|path| path.steps.len()).sum();
        if count > STEPS_MAX {
            return Err(format!("the paths have {count} steps together, more than {STEPS_MAX}"));
        }
        if paths.len() > STEPS_MAX {
            return Err(format!("there are {} paths, more than {STEPS_MAX}", paths.len()));
        }
        let mut all = Self {
            steps: Vec::with_capacity(count),
            heads: Vec::with_capacity(count),
            path_of: Vec::with_capacity(count),
            first: 0,
            last: 0,
            whole_document: 0,
        };
        for (number, path) in paths.iter().enumerate() {
            if path.steps.is_empty() {
                all.whole_document |= 1 << number;
                continue;
            }
            all.first |= 1 << all.steps.len();
            all.steps.extend_from_slice(&path.steps);
            all.heads.extend(path.steps.iter().map(Head::of));
            all.path_of.resize(all.steps.len(), number);
            all.last |= 1 << (all.steps.len() - 1);
        }
        Ok(all)
    }

    /// Where the document itself leads to.
    pub(crate) fn start(&self) -> Reached {
        Reached {
            next: self.first,
            found: self.whole_document,
        }
    }

    /// Where the member of that name leads to. `head` is the name's [`block::head`].
    #[inline(always)]
    pub(crate) fn member(&self, set: Set, name: &[u8], head: u64) -> Reached {
        self.enter(set, |number| {
            self.heads[number].fits(head) && self.is_name(number, name)
        })
    }

    /// Whether a step whose head fits is that name: of a short one the head is all.
    #[inline(always)]
    fn is_name(&self, number: usize, name: &[u8]) -> bool {
        let Step::Name(wanted) = &self.steps[number] else {
            return false;
        };
        let wanted = wanted.as_bytes();
        wanted.len() == name.len() && wanted.get(block::HEAD_BYTES..) == name.get(block::HEAD_BYTES..)
    }

    /// Where the element at that index leads to.
    pub(crate) fn element(&self, set: Set, index: usize) -> Reached {
        self.enter(set, |number| {
            let step = &self.steps[number];
            matches!(step, Step::Every) || *step == Step::Index(index)
        })
    }

    /// Where the steps of `set` that are taken lead to.
    #[inline(always)]
    fn enter(&self, set: Set, taken: impl Fn(usize) -> bool) -> Reached {
        let mut reached = Reached { next: 0, found: 0 };
        let mut left = set;
        while left != 0 {
            let number = left.trailing_zeros() as usize;
            let bit = 1 << number;
            left &= !bit;
            if taken(number) {
                if self.last & bit == 0 {
                    reached.next |= bit << 1;
                } else {
                    reached.found |= 1 << self.path_of[number];
                }
            }
        }
        reached
    }
}

/// How a name begins, and its closing quote where that is near: nearly all names of a document differ in it from one that
/// is looked for.
#[derive(Clone, Copy, Debug)]
struct Head {
    word: u64,
    mask: u64,
}

impl Head {
    /// No name fits what is no name.
    const NONE: Head = Head { word: 1, mask: 0 };

    fn of(step: &Step) -> Head {
        let Step::Name(name) = step else {
            return Head::NONE;
        };
        let bytes = (name.len() + 1).min(block::HEAD_BYTES);
        let mask = u64::MAX >> (u64::BITS - 8 * bytes as u32);
        let word = block::head(name.as_bytes()) & mask;
        Head { word, mask }
    }

    #[inline(always)]
    fn fits(self, head: u64) -> bool {
        head & self.mask == self.word
    }
}

/// Where entering a value led: the steps that could come next, and the paths that ended there.
#[derive(Clone, Copy)]
pub(crate) struct Reached {
    pub(crate) next: Set,
    pub(crate) found: Set,
}

impl Reached {
    /// No path leads on and none ended.
    #[inline(always)]
    pub(crate) fn is_nowhere(self) -> bool {
        self.next | self.found == 0
    }
}
