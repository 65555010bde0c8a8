//! One frame: an input batch's trace in the log. The layout is drawn in the parent.

use bytes::Bytes;
use millstream_batch::{Batch, Epoch, Offset};
use uuid::Uuid;

use crate::outcome::Outcome;
use crate::wire::Fields;

/// The length and the checksum in front of each frame.
pub(super) const FRAME_HEAD_BYTES: usize = 8;
/// The fields between the checksum and the outcome.
const FIXED_BYTES: usize = 67;
/// The least a frame takes.
const FRAME_BYTES_MIN: usize = FRAME_HEAD_BYTES + FIXED_BYTES;
/// The most one frame may take.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// The only kind of frame there is: the outcome of an input batch, and what was appended of it.
const KIND_APPEND: u8 = 1;

/// Which idempotent producer sent the input, and which sequence numbers it had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerStamp {
    /// The producer's id, -1 when the input was not idempotent.
    pub id: i64,
    /// Its epoch, or -1.
    pub epoch: i16,
    /// Sequence of the input's first record, or -1.
    pub first_sequence: i32,
    /// Sequence of the input's last record, or -1.
    pub last_sequence: i32,
}

impl ProducerStamp {
    /// No idempotent producer.
    pub const NONE: ProducerStamp = ProducerStamp {
        id: -1,
        epoch: -1,
        first_sequence: -1,
        last_sequence: -1,
    };
}

/// What one input batch left: where it went, who sent it, what became of each record, and the batch that was appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The topic.
    pub topic_id: Uuid,
    /// The partition of the topic.
    pub partition: u32,
    /// The lease epoch of the leader that wrote it.
    pub epoch: Epoch,
    /// The pipeline version the input went through.
    pub pipeline_version: u64,
    /// The first offset of the batch, or the next offset to be assigned when there is no batch.
    pub base_offset: Offset,
    /// Who sent the input.
    pub producer: ProducerStamp,
    /// What became of each input record.
    pub outcome: Outcome,
    /// What was appended; nothing when no record was kept.
    pub batch: Option<Batch>,
}

impl Frame {
    /// How many bytes the frame takes in the log.
    pub fn encoded_len(&self) -> usize {
        FRAME_BYTES_MIN + self.outcome.encoded_len() + self.batch.as_ref().map_or(0, Batch::encoded_len)
    }

    /// Once everything below this offset is in committed segments, the frame is not needed. One without a batch takes no
    /// offset, and is in what a segment beyond it notes of the producers.
    pub(super) fn end_offset(&self) -> Offset {
        self.batch.as_ref().map_or(self.base_offset + 1, Batch::next_offset)
    }

    /// Appends the frame to `out`.
    pub(super) fn encode_into(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let length = u32::try_from(self.encoded_len() - FRAME_HEAD_BYTES).expect("submit refuses frames above 64 MiB");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.push(KIND_APPEND);
        out.extend_from_slice(self.topic_id.as_bytes());
        out.extend_from_slice(&self.partition.to_be_bytes());
        out.extend_from_slice(&self.epoch.0.to_be_bytes());
        out.extend_from_slice(&self.pipeline_version.to_be_bytes());
        out.extend_from_slice(&self.base_offset.0.to_be_bytes());
        out.extend_from_slice(&self.producer.id.to_be_bytes());
        out.extend_from_slice(&self.producer.epoch.to_be_bytes());
        out.extend_from_slice(&self.producer.first_sequence.to_be_bytes());
        out.extend_from_slice(&self.producer.last_sequence.to_be_bytes());
        out.extend_from_slice(&(self.outcome.encoded_len() as u32).to_be_bytes());
        self.outcome.encode_into(out);
        if let Some(batch) = &self.batch {
            batch.encode_into(out);
        }
        let crc = frame_crc(&out[start..start + 4], &out[start + FRAME_HEAD_BYTES..]);
        out[start + 4..start + FRAME_HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
    }

    /// Reads a frame's body, of which the checksum was found right. The batch gets memory of its own, so that keeping it
    /// does not keep the whole group.
    pub(super) fn decode(body: &[u8]) -> Result<Frame, String> {
        let cut_short = || "a frame is cut short".to_string();
        let mut fields = Fields::new(body);
        match fields.u8().ok_or_else(cut_short)? {
            KIND_APPEND => decode_append(&mut fields).ok_or_else(cut_short)?,
            kind => Err(format!("frames of kind {kind} are not understood")),
        }
    }
}

/// `None` where the fields end too early.
fn decode_append(fields: &mut Fields<'_>) -> Option<Result<Frame, String>> {
    let mut frame = Frame {
        topic_id: fields.uuid()?,
        partition: fields.u32()?,
        epoch: fields.epoch()?,
        pipeline_version: fields.u64()?,
        base_offset: fields.offset()?,
        producer: ProducerStamp {
            id: fields.i64()?,
            epoch: fields.i16()?,
            first_sequence: fields.i32()?,
            last_sequence: fields.i32()?,
        },
        outcome: Outcome::default(),
        batch: None,
    };
    let outcome_len = fields.u32()?;
    let outcome = fields.take(outcome_len as usize)?;
    Some(decode_rest(&mut frame, outcome, fields.rest()).map(|()| frame))
}

fn decode_rest(frame: &mut Frame, outcome: &[u8], batch: &[u8]) -> Result<(), String> {
    frame.outcome = Outcome::decode(outcome)?;
    if batch.is_empty() {
        return Ok(());
    }
    let mut bytes = Bytes::copy_from_slice(batch);
    let batch = Batch::split_first(&mut bytes).map_err(|e| format!("a frame's batch: {e}"))?;
    if !bytes.is_empty() {
        return Err(format!("a frame's batch is followed by {} bytes", bytes.len()));
    }
    if batch.base_offset() != frame.base_offset {
        return Err(format!(
            "a frame at offset {} carries a batch at {}",
            frame.base_offset,
            batch.base_offset()
        ));
    }
    frame.batch = Some(batch);
    Ok(())
}

/// Whether `payload` is exactly this many frames.
pub(super) fn check_frames(count: u32, mut payload: &[u8]) -> Result<(), String> {
    for _ in 0..count {
        split_frame(&mut payload)?;
    }
    if payload.is_empty() {
        Ok(())
    } else {
        Err(format!("{} bytes follow its last frame", payload.len()))
    }
}

/// Takes the first frame's body off `payload`, checked.
pub(super) fn split_frame<'a>(payload: &mut &'a [u8]) -> Result<&'a [u8], String> {
    let (head, rest) = payload
        .split_at_checked(FRAME_HEAD_BYTES)
        .ok_or("a frame's head is cut short")?;
    let (length, crc) = head.split_at(4);
    let body_len = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
    let (body, rest) = rest
        .split_at_checked(body_len)
        .ok_or_else(|| format!("a frame of {body_len} bytes is cut short"))?;
    let expected = u32::from_be_bytes(crc.try_into().expect("four bytes"));
    let found = frame_crc(length, body);
    if found != expected {
        return Err(format!("a frame's crc is {found:#x}, expected {expected:#x}"));
    }
    *payload = rest;
    Ok(body)
}

fn frame_crc(length: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(body);
    hasher.finalize()
}
