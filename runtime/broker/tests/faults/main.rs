//! What survives when parts of the machinery break: faults of the store, of the write-ahead log and of the database, each
//! followed by a crash and a new start.
//!
//! | file | owns |
//! |---|---|
//! | `control`, `store`, `wal`, `sql` | how the parts are made to break |
//! | `clock`, `world` | what outlives a crash, and the agents that come and go in it |
//! | `records`, `ledger` | what was acknowledged, held against what is found |
//! | `steps` | every fault at every step |
//! | `named` | the known faults of systems of this kind |
//! | `numbered` | idempotent producers, and modules that drop and multiply |
//! | `model` | anything at random, against plain vectors |

mod clock;
mod control;
mod ledger;
mod model;
#[path = "../broker/modules.rs"]
#[expect(dead_code, unused_imports, reason = "other tests use the rest")]
mod modules;
mod named;
mod numbered;
mod records;
mod sql;
mod steps;
mod store;
mod wal;
mod world;
