//! The header of a batch, big endian throughout:
//!
//! ```text
//!  0  i64  base offset          stamped by the partition's leader
//!  8  i32  length               bytes after this field
//! 12  i32  leader epoch         stamped by the partition's leader
//! 16  i8   magic                2
//! 17  u32  crc                  CRC-32C of everything from byte 21 to the end
//! 21  u16  attributes           bits 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//! 23  i32  last offset delta
//! 27  i64  base timestamp       ms since the epoch
//! 35  i64  max timestamp        ms since the epoch
//! 43  i64  producer id          -1: none
//! 51  i16  producer epoch
//! 53  i32  base sequence
//! 57  i32  record count
//! 61       records              compressed as one piece by the codec
//! ```

use crate::compression::Compression;
use crate::error::BatchError;

/// Size of a batch's header in bytes; the records follow.
pub const HEADER_BYTES: usize = 61;

/// Bytes up to the end of the length field, which does not count them.
const LENGTH_END: usize = 12;
/// Where the checksummed bytes start.
pub(crate) const CRC_END: usize = 21;
const MAGIC: i8 = 2;

/// The attribute bits of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub u16);

impl Attributes {
    const CODEC: u16 = 0b111;
    const LOG_APPEND_TIME: u16 = 1 << 3;
    const TRANSACTIONAL: u16 = 1 << 4;
    const CONTROL: u16 = 1 << 5;
    const DELETE_HORIZON: u16 = 1 << 6;

    /// Attributes of a plain batch with this codec.
    pub fn new(codec: Compression) -> Attributes {
        Attributes(codec.code().into())
    }

    /// The codec, or its number when it is not one that is offered.
    pub fn codec(self) -> Result<Compression, u8> {
        let code = (self.0 & Self::CODEC) as u8;
        Compression::from_code(code).ok_or(code)
    }

    /// True where the max timestamp is the time of the append.
    pub fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    /// The same, where the max timestamp is the time of the append.
    pub(crate) fn with_log_append_time(self) -> Attributes {
        Attributes(self.0 | Self::LOG_APPEND_TIME)
    }

    /// True for a batch that is part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// True for a batch that holds control records.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// What nobody outside may say of a batch, when these attributes do.
    pub(crate) fn refused_from_outside(self) -> Option<&'static str> {
        let refused = [
            (Self::CONTROL, "control records"),
            (Self::TRANSACTIONAL, "transactional"),
            (Self::LOG_APPEND_TIME, "log append time"),
            (Self::DELETE_HORIZON, "delete horizon"),
            (!(Self::DELETE_HORIZON | (Self::DELETE_HORIZON - 1)), "unknown bits"),
        ];
        refused
            .into_iter()
            .find(|(bits, _)| self.0 & bits != 0)
            .map(|(_, what)| what)
    }
}

/// A batch's header without its length, which the records give, and without its magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Epoch of the lease under which the batch was appended; -1 or 0 before that.
    pub leader_epoch: i32,
    /// CRC-32C of the fields below and the records.
    pub crc: u32,
    /// Codec and flags.
    pub attributes: Attributes,
    /// Offset of the last record from the base offset.
    pub last_offset_delta: i32,
    /// What timestamp deltas count from, ms since the epoch.
    pub base_timestamp_ms: i64,
    /// The greatest timestamp of the records, ms since the epoch.
    pub max_timestamp_ms: i64,
    /// Id of an idempotent producer, or -1.
    pub producer_id: i64,
    /// Epoch of the producer id.
    pub producer_epoch: i16,
    /// The producer's sequence number of the first record.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

impl BatchHeader {
    /// The timestamp of a record, ms since the epoch, as readers see it: that of the append where the batch has one.
    pub fn timestamp_ms(&self, timestamp_delta: i64) -> i64 {
        if self.attributes.is_log_append_time() {
            self.max_timestamp_ms
        } else {
            self.base_timestamp_ms.saturating_add(timestamp_delta)
        }
    }

    /// Reads the header at the start of `bytes`, with the size of its whole batch. Checked here: that all of the batch is
    /// there, the magic, the codec, and that offsets and count fit each other.
    pub(crate) fn decode(bytes: &[u8]) -> Result<(BatchHeader, usize), BatchError> {
        let cut_short = |needed| BatchError::CutShort {
            found: bytes.len(),
            needed,
        };
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(cut_short(HEADER_BYTES))?;
        let magic = i8::from_be_bytes(at(header, 16));
        if magic != MAGIC {
            return Err(BatchError::Magic { found: magic });
        }
        let length = i32::from_be_bytes(at(header, 8));
        let least = (HEADER_BYTES - LENGTH_END) as i32;
        if length < least {
            return Err(BatchError::Length { found: length, least });
        }
        let batch_bytes = LENGTH_END.saturating_add(length as usize);
        if batch_bytes > bytes.len() {
            return Err(cut_short(batch_bytes));
        }
        let header = BatchHeader {
            base_offset: i64::from_be_bytes(at(header, 0)),
            leader_epoch: i32::from_be_bytes(at(header, 12)),
            crc: u32::from_be_bytes(at(header, 17)),
            attributes: Attributes(u16::from_be_bytes(at(header, 21))),
            last_offset_delta: i32::from_be_bytes(at(header, 23)),
            base_timestamp_ms: i64::from_be_bytes(at(header, 27)),
            max_timestamp_ms: i64::from_be_bytes(at(header, 35)),
            producer_id: i64::from_be_bytes(at(header, 43)),
            producer_epoch: i16::from_be_bytes(at(header, 51)),
            base_sequence: i32::from_be_bytes(at(header, 53)),
            record_count: i32::from_be_bytes(at(header, 57)),
        };
        header.check()?;
        Ok((header, batch_bytes))
    }

    fn check(&self) -> Result<(), BatchError> {
        let BatchHeader {
            base_offset,
            last_offset_delta,
            record_count,
            ..
        } = *self;
        self.attributes
            .codec()
            .map_err(|code| BatchError::UnknownCodec { code })?;
        // Fewer records than offsets are what a reader's filter leaves, none included.
        if record_count < 0 || last_offset_delta < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
            return Err(BatchError::Count {
                record_count,
                last_offset_delta,
            });
        }
        let next_offset = base_offset.checked_add(i64::from(last_offset_delta) + 1);
        if base_offset < 0 || next_offset.is_none() {
            return Err(BatchError::Offset {
                base_offset,
                last_offset_delta,
            });
        }
        Ok(())
    }

    /// The header's bytes before `records_bytes` of records.
    ///
    /// # Panics
    ///
    /// When the records do not fit the length field of 31 bits.
    pub(crate) fn encode(&self, records_bytes: usize) -> [u8; HEADER_BYTES] {
        let length = i32::try_from(HEADER_BYTES - LENGTH_END + records_bytes).expect("a batch is smaller than 2 GiB");
        let mut header = [0; HEADER_BYTES];
        put(&mut header, 0, self.base_offset.to_be_bytes());
        put(&mut header, 8, length.to_be_bytes());
        put(&mut header, 12, self.leader_epoch.to_be_bytes());
        put(&mut header, 16, MAGIC.to_be_bytes());
        put(&mut header, 17, self.crc.to_be_bytes());
        put(&mut header, 21, self.attributes.0.to_be_bytes());
        put(&mut header, 23, self.last_offset_delta.to_be_bytes());
        put(&mut header, 27, self.base_timestamp_ms.to_be_bytes());
        put(&mut header, 35, self.max_timestamp_ms.to_be_bytes());
        put(&mut header, 43, self.producer_id.to_be_bytes());
        put(&mut header, 51, self.producer_epoch.to_be_bytes());
        put(&mut header, 53, self.base_sequence.to_be_bytes());
        put(&mut header, 57, self.record_count.to_be_bytes());
        header
    }

    /// The checksum that belongs to these fields and `records`.
    pub(crate) fn crc_with(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.encode(records.len())[CRC_END..]), records)
    }
}

fn at<const N: usize>(header: &[u8; HEADER_BYTES], position: usize) -> [u8; N] {
    *header[position..].first_chunk().expect("fields lie inside the header")
}

fn put<const N: usize>(header: &mut [u8; HEADER_BYTES], position: usize, field: [u8; N]) {
    header[position..position + N].copy_from_slice(&field);
}
