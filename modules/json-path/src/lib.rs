//! Finds the values that paths name in a JSON document, in one pass over its bytes and without building a tree.
//!
//! A path is `$.user.name`, `$.items[0].price`, `$.items[*].price` or `$['a name']["with.dots"]`; the leading `$.` may be
//! left out. `[*]` is every element of an array. Names are compared as they read after decoding, so `"n\u0061me"` is
//! `name`; where an object has a name twice, both are found.
//!
//! Invariant: the whole document is checked, so what comes back from a document that is not JSON is an error, never half
//! of the values.

mod block;
mod edit;
#[cfg(test)]
mod oracle;
mod path;
mod paths;
mod scan;
mod walk;

pub use edit::{ApplyError, Edit, EditError};
pub use path::{Path, PathError};
pub use paths::Paths;
pub use serde_json::Error;
pub use walk::{Found, find, find_nested, split_value};
