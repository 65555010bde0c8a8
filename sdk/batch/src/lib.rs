//! The record batch: the unit that travels from the producer through the WAL, the module and the segment to the reader.
//!
//! It is Kafka's record batch, version 2, byte for byte
//! (<https://kafka.apache.org/documentation/#recordbatch>). This crate is a pure codec: it does no I/O, reads no clock and
//! draws no randomness.
//!
//! - [`RecordIter`] and [`RecordView`] read encoded records in place, [`encode_record`] writes one. `source` holds the
//!   one definition of the record layout; it reads from a slice or, through bounded scratch, from a decompressor.
//! - [`Batch`] is a decoded header with the records' bytes as they travel; offset and epoch are stamped without touching
//!   the records or the checksum. `header` draws the layout.
//! - [`Batch::validate`] is the trust boundary for what comes from outside; [`Limits`] bounds what it accepts.
//! - [`BatchBuilder`] makes a batch out of records.
//!
//! Without the feature `codecs` only the record view and encoder remain, in pure Rust: that is what a module guest uses.
//!
//! Invariant: no byte from outside can make this crate panic, or allocate by a length that was not checked.

#[cfg(feature = "codecs")]
mod batch;
#[cfg(feature = "codecs")]
mod builder;
#[cfg(feature = "codecs")]
mod compression;
#[cfg(feature = "codecs")]
mod decompress;
mod error;
#[cfg(feature = "codecs")]
mod header;
mod offset;
mod record;
mod source;
#[cfg(feature = "codecs")]
mod stream;
#[cfg(feature = "codecs")]
mod validate;
mod varint;

#[cfg(feature = "codecs")]
pub use batch::Batch;
#[cfg(feature = "codecs")]
pub use builder::BatchBuilder;
#[cfg(feature = "codecs")]
pub use compression::Compression;
#[cfg(feature = "codecs")]
pub use error::BatchError;
pub use error::RecordError;
#[cfg(feature = "codecs")]
pub use header::{Attributes, BatchHeader, HEADER_BYTES};
pub use offset::{Epoch, Offset};
pub use record::{Headers, RecordIter, RecordView, encode_record};
#[cfg(feature = "codecs")]
pub use validate::Limits;
