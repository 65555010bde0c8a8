//! The notes: what is known about the offsets of a segment besides the batches. The layout is drawn in the parent.

use millstream_batch::Offset;

use super::format::damaged;
use crate::error::Result;
use crate::outcome::Outcome;
use crate::wire::Fields;

/// How many of its last batches a producer's state remembers.
pub const PRODUCER_BATCHES_MAX: usize = 5;
const NOTES_MAGIC: [u8; 4] = *b"MSNT";
const RANGE_BYTES: usize = 16;
const PRODUCER_BYTES_MIN: usize = 11;

/// What is known about the offsets of a segment besides the batches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Which pipeline version wrote which offsets, in order; neighbours differ.
    pub pipelines: Vec<PipelineRange>,
    /// The idempotent producers at the end of the segment.
    pub producers: ProducerCheckpoint,
}

/// The pipeline version that wrote the offsets from here to the next range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineRange {
    /// The first offset.
    pub first_offset: Offset,
    /// The pipeline version.
    pub version: u64,
}

/// The state of all idempotent producers of a partition at one offset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProducerCheckpoint {
    /// The producers, those first that sent nothing for longest.
    pub producers: Vec<ProducerState>,
}

/// One idempotent producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerState {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Its last batches, oldest first; at most [`PRODUCER_BATCHES_MAX`], of more the last ones are kept.
    pub batches: Vec<ProducerBatch>,
}

/// One batch a producer sent, and the answer it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence of the first input record.
    pub first_sequence: i32,
    /// Sequence of the last input record.
    pub last_sequence: i32,
    /// The first offset of what was appended, or the offset that was next.
    pub base_offset: Offset,
    /// What became of each input record.
    pub outcome: Outcome,
}

impl Notes {
    /// About how many bytes of memory they take besides the struct itself.
    pub(super) fn memory_bytes(&self) -> usize {
        let outcomes = |batch: &ProducerBatch| size_of::<ProducerBatch>() + size_of_val(batch.outcome.runs());
        let producers = self.producers.producers.iter();
        size_of_val(self.pipelines.as_slice())
            + producers
                .map(|producer| size_of::<ProducerState>() + producer.batches.iter().map(outcomes).sum::<usize>())
                .sum::<usize>()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = NOTES_MAGIC.to_vec();
        out.extend_from_slice(&(self.pipelines.len() as u32).to_be_bytes());
        for range in &self.pipelines {
            out.extend_from_slice(&range.first_offset.0.to_be_bytes());
            out.extend_from_slice(&range.version.to_be_bytes());
        }
        self.producers.encode_into(&mut out);
        out
    }

    /// Reads notes of which the checksum was found right.
    pub(super) fn decode(key: &str, position: u64, bytes: &[u8]) -> Result<Notes> {
        let wrong = |reason: &str| damaged(key, "notes", position, reason);
        let mut fields = Fields::new(bytes);
        if fields.array() != Some(NOTES_MAGIC) {
            return Err(wrong("the magic is missing"));
        }
        let notes = decode_notes(&mut fields)
            .ok_or_else(|| wrong("they are cut short"))?
            .map_err(wrong)?;
        if fields.rest().is_empty() {
            Ok(notes)
        } else {
            Err(wrong("something follows the last producer"))
        }
    }
}

/// `None` where the fields end too early.
fn decode_notes(fields: &mut Fields<'_>) -> Option<std::result::Result<Notes, &'static str>> {
    let mut notes = Notes::default();
    let count = fields.u32()? as usize;
    notes.pipelines.reserve(count.min(fields.rest().len() / RANGE_BYTES));
    for _ in 0..count {
        notes.pipelines.push(PipelineRange {
            first_offset: fields.offset()?,
            version: fields.u64()?,
        });
    }
    match ProducerCheckpoint::decode_from(fields)? {
        Ok(producers) => notes.producers = producers,
        Err(reason) => return Some(Err(reason)),
    }
    Some(Ok(notes))
}

impl ProducerCheckpoint {
    /// The bytes that a segment's notes have of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Reads what [`ProducerCheckpoint::encode`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &[u8]) -> std::result::Result<ProducerCheckpoint, &'static str> {
        let mut fields = Fields::new(bytes);
        let checkpoint = ProducerCheckpoint::decode_from(&mut fields).ok_or("it is cut short")??;
        match fields.rest().is_empty() {
            true => Ok(checkpoint),
            false => Err("something follows the last producer"),
        }
    }

    fn encode_into(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.producers.len() as u32).to_be_bytes());
        for producer in &self.producers {
            producer.encode_into(out);
        }
    }

    /// `None` where the fields end too early.
    fn decode_from(fields: &mut Fields<'_>) -> Option<std::result::Result<ProducerCheckpoint, &'static str>> {
        let count = fields.u32()? as usize;
        let mut producers = Vec::with_capacity(count.min(fields.rest().len() / PRODUCER_BYTES_MIN));
        for _ in 0..count {
            match ProducerState::decode(fields)? {
                Ok(producer) => producers.push(producer),
                Err(reason) => return Some(Err(reason)),
            }
        }
        Some(Ok(ProducerCheckpoint { producers }))
    }
}

impl ProducerState {
    fn encode_into(&self, out: &mut Vec<u8>) {
        let batches = &self.batches[self.batches.len().saturating_sub(PRODUCER_BATCHES_MAX)..];
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.push(batches.len() as u8);
        for batch in batches {
            out.extend_from_slice(&batch.first_sequence.to_be_bytes());
            out.extend_from_slice(&batch.last_sequence.to_be_bytes());
            out.extend_from_slice(&batch.base_offset.0.to_be_bytes());
            out.extend_from_slice(&(batch.outcome.encoded_len() as u32).to_be_bytes());
            batch.outcome.encode_into(out);
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<std::result::Result<ProducerState, &'static str>> {
        let mut state = ProducerState {
            id: fields.i64()?,
            epoch: fields.i16()?,
            batches: Vec::new(),
        };
        let count = usize::from(fields.u8()?);
        if count > PRODUCER_BATCHES_MAX {
            return Some(Err("a producer has more than 5 batches"));
        }
        for _ in 0..count {
            let (first_sequence, last_sequence) = (fields.i32()?, fields.i32()?);
            let base_offset = fields.offset()?;
            let outcome_len = fields.u32()?;
            match Outcome::decode(fields.take(outcome_len as usize)?) {
                Ok(outcome) => {
                    state.batches.push(ProducerBatch {
                        first_sequence,
                        last_sequence,
                        base_offset,
                        outcome,
                    });
                }
                Err(reason) => return Some(Err(reason)),
            }
        }
        Some(Ok(state))
    }
}
