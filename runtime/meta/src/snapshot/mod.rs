//! Snapshots: the whole of the metadata as lines of JSON, out of one database and into another.
//!
//! ```text
//! {"format":"millstream-metadata","version":1,"schema":5,"database":"<id>","exported_from":"sqlite",
//!  "exported_at_ms":1700000000000,"live_agents":["a"]}                     (one line)
//! {"table":"topics","row":{"id":"<uuid>","name":"t","partitions":3,"config":{...},...}}
//! ...
//! {"end":{"topics":1,...},"crc32":"89abcdef"}
//! ```
//!
//! 1. Tables stand in the order of [`tables::TABLES`], in which no row refers to a later one; rows in the order of their
//!    primary key, text by its bytes. So equal metadata make equal rows, whatever database they come from.
//! 2. Ids are text, configuration is JSON, times are milliseconds since 1970. The time at which an agent's leases end is
//!    0: it means nothing elsewhere.
//! 3. An import takes everything as it is but for the id of the database: it gets one of its own, and keeps that of the
//!    snapshot as the former one.
//! 4. The last line counts the rows of each table, and sums up every byte before it: a file that was cut or changed is
//!    not imported.
//!
//! | file | owns |
//! |---|---|
//! | `tables` | which tables and columns there are |
//! | `format` | the lines, and every check that needs no database |
//! | `export` | one moment of a database, as lines |
//! | `import` | lines into an empty database |

mod export;
mod format;
mod import;
mod tables;
#[cfg(test)]
mod tests;

pub use format::{SnapshotHeader, SnapshotReport, TableCount};
pub use import::ImportOptions;
pub(crate) use import::insert_into;
