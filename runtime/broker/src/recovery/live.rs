//! Which frames of a log count for a partition.

use millstream_batch::{Epoch, Offset};
use millstream_log::Frame;

/// Two frames that do not meet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) expected: Offset,
    pub(super) found: Offset,
}

/// Of all frames of a partition, visited in the order in which they were written, those that count: beyond the committed
/// end and without a gap. A frame of a greater epoch overrules every frame of a lesser one at or beyond its offset.
///
/// It holds no more than what counts so far.
#[derive(Debug)]
pub(super) struct LiveFrames {
    /// The committed end as it was known when the log was read. It may have moved on since.
    committed_end: Offset,
    epoch: Epoch,
    frames: Vec<Frame>,
}

impl LiveFrames {
    pub(super) fn new(committed_end: Offset) -> LiveFrames {
        LiveFrames {
            committed_end,
            epoch: Epoch(0),
            frames: Vec::new(),
        }
    }

    pub(super) fn visit(&mut self, frame: Frame) {
        if frame.epoch > self.epoch {
            self.epoch = frame.epoch;
            self.frames.retain(|earlier| earlier.base_offset < frame.base_offset);
        }
        if is_beyond(&frame, self.committed_end) {
            self.frames.push(frame);
        }
    }

    /// What counts beyond the committed end as it is under the lease, which nobody else can move any more.
    pub(super) fn finish(self, committed_end: Offset) -> Result<Vec<Frame>, Gap> {
        let mut live = self.frames;
        live.retain(|frame| is_beyond(frame, committed_end));
        let mut expected = committed_end;
        for frame in &live {
            if frame.base_offset != expected {
                return Err(Gap {
                    expected,
                    found: frame.base_offset,
                });
            }
            expected = end(frame);
        }
        Ok(live)
    }
}

/// Whether the frame tells something that is in no committed segment. One without a batch at the committed end does: what the
/// segment notes may have been put together before it was written.
fn is_beyond(frame: &Frame, committed_end: Offset) -> bool {
    match &frame.batch {
        Some(batch) => batch.next_offset() > committed_end,
        None => frame.base_offset >= committed_end,
    }
}

fn end(frame: &Frame) -> Offset {
    frame
        .batch
        .as_ref()
        .map_or(frame.base_offset, |batch| batch.next_offset())
}

#[cfg(test)]
mod tests {
    use millstream_batch::{BatchBuilder, Compression};
    use millstream_log::{Outcome, ProducerStamp};
    use uuid::Uuid;

    use super::*;

    fn frame(epoch: u64, base: u64, records: u32) -> Frame {
        let mut builder = BatchBuilder::new();
        for _ in 0..records {
            builder.push(0, None, Some(b"v"), [].into_iter());
        }
        let mut batch = builder.build(Compression::None);
        batch.stamp(Offset(base), Epoch(epoch));
        Frame {
            topic_id: Uuid::nil(),
            partition: 0,
            epoch: Epoch(epoch),
            pipeline_version: 0,
            base_offset: Offset(base),
            producer: ProducerStamp::NONE,
            outcome: Outcome::all_kept(records),
            batch: Some(batch),
        }
    }

    fn live(frames: Vec<Frame>, committed_end: u64) -> Result<Vec<(u64, u64)>, Gap> {
        live_from(0, frames, committed_end)
    }

    /// The committed end was `known` when the log was read.
    fn live_from(known: u64, frames: Vec<Frame>, committed_end: u64) -> Result<Vec<(u64, u64)>, Gap> {
        let mut live = LiveFrames::new(Offset(known));
        frames.into_iter().for_each(|frame| live.visit(frame));
        let live = live.finish(Offset(committed_end))?;
        Ok(live.iter().map(|frame| (frame.epoch.0, frame.base_offset.0)).collect())
    }

    #[test]
    fn frames_in_committed_segments_are_left_out() {
        assert_eq!(
            live(vec![frame(1, 0, 2), frame(1, 2, 3), frame(1, 5, 1)], 2),
            Ok(vec![(1, 2), (1, 5)])
        );
        assert_eq!(live(vec![frame(1, 0, 2)], 2), Ok(vec![]));
    }

    #[test]
    fn a_greater_epoch_overrules_what_a_lesser_one_wrote_at_its_offset() {
        let frames = vec![
            frame(1, 0, 2),
            frame(1, 2, 2),
            frame(1, 4, 2),
            frame(2, 2, 1),
            frame(2, 3, 5),
        ];
        assert_eq!(live(frames, 0), Ok(vec![(1, 0), (2, 2), (2, 3)]));
    }

    #[test]
    fn a_gap_stops() {
        let gap = Gap {
            expected: Offset(2),
            found: Offset(4),
        };
        assert_eq!(live(vec![frame(1, 0, 2), frame(1, 4, 2)], 0), Err(gap));
        let gap = Gap {
            expected: Offset(1),
            found: Offset(2),
        };
        assert_eq!(live(vec![frame(1, 2, 2)], 1), Err(gap));
    }

    #[test]
    fn a_frame_without_a_batch_counts_from_the_committed_end_on() {
        let dropped = |epoch, base| Frame {
            batch: None,
            ..frame(epoch, base, 1)
        };
        let frames = || {
            vec![
                frame(1, 0, 2),
                dropped(1, 2),
                frame(1, 2, 1),
                dropped(1, 3),
                dropped(1, 3),
            ]
        };
        assert_eq!(live(frames(), 2), Ok(vec![(1, 2), (1, 2), (1, 3), (1, 3)]));
        assert_eq!(live(frames(), 3), Ok(vec![(1, 3), (1, 3)]));
        let mut frames = frames();
        frames.push(dropped(2, 3));
        assert_eq!(live(frames, 3), Ok(vec![(2, 3)]));
    }

    #[test]
    fn what_was_known_to_be_committed_is_not_even_kept() {
        let frames = || vec![frame(1, 0, 2), frame(1, 2, 3), frame(1, 5, 1)];
        let mut visited = LiveFrames::new(Offset(5));
        frames().into_iter().for_each(|frame| visited.visit(frame));
        assert_eq!(visited.frames.len(), 1);
        for known in 0..=5 {
            assert_eq!(live_from(known, frames(), 5), Ok(vec![(1, 5)]), "{known}");
        }
    }

    #[test]
    fn a_greater_epoch_overrules_from_below_the_committed_end_too() {
        // Its frame is committed; what a lesser epoch wrote beyond it was never acknowledged.
        let frames = || vec![frame(1, 0, 2), frame(1, 2, 2), frame(2, 2, 1)];
        for known in 0..=3 {
            assert_eq!(live_from(known, frames(), 3), Ok(vec![]), "{known}");
        }
    }
}
