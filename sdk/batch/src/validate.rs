//! What a batch from outside must be, beyond being whole: the checks behind `Batch::validate`.

use crate::batch::Batch;
use crate::compression::Compression;
use crate::decompress::Decompressor;
use crate::error::BatchError;
use crate::header::BatchHeader;
use crate::source::{SliceSource, Source, enter_record, read_fields};
use crate::stream::{StreamSource, WalkError};

/// What a batch from outside may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of the whole batch as it travels, in bytes.
    pub batch_bytes_max: usize,
    /// Size of one encoded record with its length field, in bytes.
    pub record_bytes_max: usize,
    /// Size of all compressed records when decompressed, in bytes.
    pub decompressed_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_bytes_max: 16 << 20,
            record_bytes_max: 1 << 20,
            decompressed_bytes_max: 64 << 20,
        }
    }
}

/// Checks what a header from outside says, beyond what every header must hold.
pub(crate) fn check_header(header: &BatchHeader) -> Result<(), BatchError> {
    if let Some(what) = header.attributes.refused_from_outside() {
        return Err(BatchError::RefusedAttributes {
            attributes: header.attributes.0,
            what,
        });
    }
    let BatchHeader {
        record_count,
        last_offset_delta,
        ..
    } = *header;
    if record_count == 0 || last_offset_delta != record_count - 1 {
        return Err(BatchError::Count {
            record_count,
            last_offset_delta,
        });
    }
    let BatchHeader {
        producer_id,
        producer_epoch,
        base_sequence,
        ..
    } = *header;
    // Without an id the other two mean nothing, and some clients leave zeros there.
    let contradicts = producer_id >= 0 && (producer_epoch < 0 || base_sequence < 0);
    if producer_id < -1 || contradicts {
        return Err(BatchError::Producer {
            producer_id,
            producer_epoch,
            base_sequence,
        });
    }
    Ok(())
}

/// Walks the records of a batch with a header that was checked.
pub(crate) fn check_records(batch: &Batch, limits: &Limits) -> Result<(), BatchError> {
    let decompressor = match batch.compression() {
        Compression::None => return walk(&mut SliceSource::new(batch.records()), batch.header(), limits),
        Compression::Lz4 => Decompressor::lz4(batch.records())?,
        Compression::Zstd => Decompressor::zstd(batch.records())?,
    };
    let mut source = StreamSource::new(decompressor, limits.decompressed_bytes_max);
    walk(&mut source, batch.header(), limits)?;
    source.finish()
}

fn walk<S>(source: &mut S, header: &BatchHeader, limits: &Limits) -> Result<(), BatchError>
where
    S: Source,
    WalkError: From<S::Error>,
{
    let declared = header.record_count as u32;
    let mut max_timestamp_ms = i64::MIN;
    for index in 0..declared {
        let at = |error| WalkError::from(error).at(index);
        if source.at_end().map_err(at)? {
            return Err(BatchError::RecordsMissing { declared, found: index });
        }
        let size = enter_record(source).map_err(at)?;
        if size > limits.record_bytes_max {
            return Err(BatchError::RecordTooLarge {
                index,
                size,
                limit: limits.record_bytes_max,
            });
        }
        let fields = read_fields(source).map_err(at)?;
        if fields.offset_delta != index as i32 {
            return Err(BatchError::OffsetDelta {
                index,
                found: fields.offset_delta,
            });
        }
        max_timestamp_ms = max_timestamp_ms.max(timestamp(header, index, fields.timestamp_delta)?);
    }
    if !source.at_end().map_err(|error| WalkError::from(error).at(declared))? {
        return Err(BatchError::RecordsSurplus {
            declared,
            position: source.position(),
        });
    }
    if max_timestamp_ms != header.max_timestamp_ms {
        return Err(BatchError::MaxTimestamp {
            found: header.max_timestamp_ms,
            computed: max_timestamp_ms,
        });
    }
    Ok(())
}

#[inline]
fn timestamp(header: &BatchHeader, index: u32, delta_ms: i64) -> Result<i64, BatchError> {
    let base_timestamp_ms = header.base_timestamp_ms;
    let overflow = BatchError::Timestamp {
        index,
        base_timestamp_ms,
        delta_ms,
    };
    base_timestamp_ms.checked_add(delta_ms).ok_or(overflow)
}
