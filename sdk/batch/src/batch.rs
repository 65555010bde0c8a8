//! One batch: a decoded header, and the records' bytes as they travel.
//!
//! Stamping an offset touches the header alone, so that bytes which are shared are never copied.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

use crate::compression::Compression;
use crate::decompress::Decompressor;
use crate::error::BatchError;
use crate::header::{Attributes, BatchHeader, CRC_END, HEADER_BYTES};
use crate::offset::{Epoch, Offset};
use crate::validate::{self, Limits};

/// The value of each producer field where there is no idempotent producer.
const NO_PRODUCER: i8 = -1;

/// One encoded record batch.
///
/// Invariant: the header's counts, offsets and codec are those that [`BatchHeader`]'s decoding lets through, and its CRC
/// is that of the bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    header: BatchHeader,
    records: Bytes,
}

impl Batch {
    /// Accepts exactly one batch from outside, or says why not: this is the trust boundary.
    ///
    /// A batch that is returned has the checksum it says, counts its records right, at least one and at most what
    /// `limits` allow, with offset deltas 0, 1, 2, ..., header keys in UTF-8, and the max timestamp of its records.
    /// Compressed records are one whole frame that was walked to its end. No bit is set that only the broker may set.
    pub fn validate(bytes: Bytes, limits: &Limits) -> Result<Batch, BatchError> {
        if bytes.len() > limits.batch_bytes_max {
            return Err(BatchError::TooLarge {
                size: bytes.len(),
                limit: limits.batch_bytes_max,
            });
        }
        let (header, batch_bytes) = BatchHeader::decode(&bytes)?;
        if bytes.len() > batch_bytes {
            return Err(BatchError::Trailing {
                bytes: bytes.len() - batch_bytes,
                batch_bytes,
            });
        }
        check_crc(&header, &bytes)?;
        let batch = Batch {
            header,
            records: bytes.slice(HEADER_BYTES..),
        };
        validate::check_header(&batch.header)?;
        validate::check_records(&batch, limits)?;
        Ok(batch)
    }

    /// Takes the first of several batches that lie back to back, from storage or from a broker. `bytes` moves on behind
    /// it; nothing is copied. Checked are structure and checksum, not the records. After an error `bytes` are as they were.
    pub fn split_first(bytes: &mut Bytes) -> Result<Batch, BatchError> {
        let (header, batch_bytes) = BatchHeader::decode(bytes)?;
        check_crc(&header, &bytes[..batch_bytes])?;
        let records = bytes.split_to(batch_bytes).slice(HEADER_BYTES..);
        Ok(Batch { header, records })
    }

    /// Builds an uncompressed batch out of records that are encoded already, with header and CRC and without a producer.
    /// Base offset is 0 and leader epoch -1 until they are stamped.
    ///
    /// # Panics
    ///
    /// When there are more records than offsets, or more of either or of bytes than 31 bits count.
    pub fn from_records(
        base_timestamp_ms: i64,
        max_timestamp_ms: i64,
        record_count: u32,
        last_offset_delta: u32,
        records: Bytes,
    ) -> Batch {
        assert!(
            u64::from(record_count) <= u64::from(last_offset_delta) + 1,
            "each record has an offset of its own"
        );
        let last_offset_delta = i32::try_from(last_offset_delta).expect("a batch spans fewer than 2^31 offsets");
        let record_count = i32::try_from(record_count).expect("a batch holds fewer than 2^31 records");
        Self::sealed(
            BatchHeader {
                base_offset: 0,
                leader_epoch: -1,
                crc: 0,
                attributes: Attributes::new(Compression::None),
                last_offset_delta,
                base_timestamp_ms,
                max_timestamp_ms,
                producer_id: NO_PRODUCER.into(),
                producer_epoch: NO_PRODUCER.into(),
                base_sequence: NO_PRODUCER.into(),
                record_count,
            },
            records,
        )
    }

    /// The batch of `header` and `records`, with the checksum computed.
    fn sealed(mut header: BatchHeader, records: Bytes) -> Batch {
        header.crc = header.crc_with(&records);
        Batch { header, records }
    }

    /// The same batch with its records, which must not be compressed yet, compressed by `codec`.
    pub(crate) fn compressed(self, codec: Compression) -> Batch {
        if codec == Compression::None {
            return self;
        }
        let records = codec.compress(&self.records).into_owned().into();
        Self::sealed(
            BatchHeader {
                attributes: Attributes::new(codec),
                ..self.header
            },
            records,
        )
    }

    /// The same batch from an idempotent producer; `base_sequence` numbers its first record.
    pub fn with_producer(self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Batch {
        Self::sealed(
            BatchHeader {
                producer_id,
                producer_epoch,
                base_sequence,
                ..self.header
            },
            self.records,
        )
    }

    /// The same batch with the time of its append as that of every record. The records keep their deltas, which count for
    /// nothing any more.
    pub fn with_append_time(self, append_time_ms: i64) -> Batch {
        Self::sealed(
            BatchHeader {
                attributes: self.header.attributes.with_log_append_time(),
                max_timestamp_ms: append_time_ms,
                ..self.header
            },
            self.records,
        )
    }

    /// The time of its append, ms since the epoch, where that is the timestamp of every record.
    pub fn append_time_ms(&self) -> Option<i64> {
        let header = &self.header;
        header
            .attributes
            .is_log_append_time()
            .then_some(header.max_timestamp_ms)
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records as they travel, compressed by [`Batch::compression`].
    pub fn records(&self) -> &Bytes {
        &self.records
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> Offset {
        Offset(self.header.base_offset as u64)
    }

    /// The offset after the last one.
    pub fn next_offset(&self) -> Offset {
        self.base_offset() + (self.header.last_offset_delta as u64 + 1)
    }

    /// Number of records.
    pub fn record_count(&self) -> u32 {
        self.header.record_count as u32
    }

    /// Size of the whole batch in bytes, as it travels.
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The codec of the records.
    pub fn compression(&self) -> Compression {
        self.header
            .attributes
            .codec()
            .expect("a header with an unknown codec is not decoded")
    }

    /// Stamps what the partition's leader assigns: neither is under the checksum.
    ///
    /// # Panics
    ///
    /// When the epoch does not fit 31 bits, or the offsets 63.
    pub fn stamp(&mut self, base_offset: Offset, epoch: Epoch) {
        let last = base_offset.0.checked_add(self.header.last_offset_delta as u64);
        assert!(
            last.is_some_and(|last| last < i64::MAX as u64),
            "offsets fit in 63 bits"
        );
        self.header.base_offset = base_offset.0 as i64;
        self.header.leader_epoch = i32::try_from(epoch.0).expect("epochs fit in 31 bits");
    }

    /// The header's bytes, which [`Batch::records`] follow.
    pub fn encode_header(&self) -> [u8; HEADER_BYTES] {
        self.header.encode(self.records.len())
    }

    /// Appends the whole batch.
    pub fn encode_into(&self, out: &mut impl BufMut) {
        out.put_slice(&self.encode_header());
        out.put_slice(&self.records);
    }

    /// The whole batch as one piece: a copy.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.encoded_len());
        self.encode_into(&mut bytes);
        bytes.freeze()
    }

    /// The records uncompressed; shared with the batch where they are already. An error where they do not decompress, or
    /// are more than `bytes_max`.
    pub fn decompressed(&self, bytes_max: usize) -> Result<Bytes, BatchError> {
        let decompressor = match self.compression() {
            Compression::None if self.records.len() > bytes_max => {
                return Err(BatchError::DecompressedTooLarge { limit: bytes_max });
            }
            Compression::None => return Ok(self.records.clone()),
            Compression::Lz4 => Decompressor::lz4(&self.records)?,
            Compression::Zstd => Decompressor::zstd(&self.records)?,
        };
        Ok(decompressor.content(self.records.len(), bytes_max)?.into())
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("header", &self.header)
            .field("records_bytes", &self.records.len())
            .finish()
    }
}

fn check_crc(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    let computed = crc32c::crc32c(&batch[CRC_END..]);
    if computed != header.crc {
        return Err(BatchError::Crc {
            found: header.crc,
            computed,
        });
    }
    Ok(())
}
