//! Making room: near the bound of the tails the fullest partitions make segments, and above the bound of the write-ahead
//! log those that keep its oldest part.

use std::{cmp::Reverse, sync::Weak, time::Duration};

use tokio::time::Instant;

use crate::{
    broker::Broker,
    partition::{Partition, TailBudget},
};

/// How often the write-ahead log is looked at, and tails where there is little room for them.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks while producers press: segments take time. It is longer where looking takes long, so that most of
/// the time is not spent on that.
const PRESSED_PAUSE: Duration = Duration::from_millis(20);
const PAUSE_PER_LOOK: u32 = 10;

/// Runs until the broker is gone.
pub(crate) async fn run(broker: Weak<Broker>, budget: TailBudget) {
    let (mut tails, mut wal) = (Pace::default(), Pace::default());
    loop {
        tokio::select! {
            () = budget.pressed() => {}
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        let Some(broker) = broker.upgrade() else { return };
        let began = Instant::now();
        // Where closed partitions hold most of the memory the rest is soon full again, and each time a few small segments
        // come of it.
        if !budget.is_cramped() || tails.is_due(began) {
            broker.relieve_tails();
        }
        if wal.is_due(began) {
            broker.relieve_wal().await;
        }
        drop(broker);
        tokio::time::sleep(PRESSED_PAUSE.max(began.elapsed() * PAUSE_PER_LOOK)).await;
    }
}

/// What is due once in an interval, however often producers press.
#[derive(Default)]
struct Pace {
    last: Option<Instant>,
}

impl Pace {
    fn is_due(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| now >= last + LOOK_INTERVAL);
        if due {
            self.last = Some(now);
        }
        due
    }
}

impl Broker {
    /// Near the bound the fullest tails become segments, as few of them as make enough room.
    fn relieve_tails(&self) {
        let mut excess = self.shared().budget.excess();
        if excess == 0 {
            return;
        }
        let mut waiting: Vec<(usize, Partition)> = Vec::new();
        for partition in self.live_topics().iter().flat_map(|live| live.open_partitions()) {
            let (bytes, rolling) = partition.tail_bytes();
            excess = excess.saturating_sub(rolling);
            // While one range is on its way the rest of that tail has to wait for it.
            if rolling == 0 && bytes > 0 {
                waiting.push((bytes, partition));
            }
        }
        waiting.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        for (bytes, partition) in waiting {
            if excess == 0 {
                return;
            }
            partition.roll();
            excess = excess.saturating_sub(bytes);
        }
    }

    /// Above the bound of the write-ahead log the partitions that keep its oldest part make segments.
    async fn relieve_wal(&self) {
        let pinned = self.shared().wal.pinned_by(self.shared().settings.wal_bytes_max);
        if pinned.is_empty() {
            return;
        }
        let topics = self.live_topics();
        for (topic_id, number) in pinned {
            let Some(live) = topics.iter().find(|live| live.topic().id == topic_id) else {
                continue;
            };
            match self.partition(live, number).await {
                Ok(partition) => partition.roll(),
                // Its records are that agent's, and our log is sealed.
                Err(error) if error.is_elsewhere() => {}
                Err(error) => {
                    tracing::warn!(topic = live.topic().name, partition = number, %error,
                        "the write-ahead log is too large, and what keeps it cannot become a segment");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_paced_is_due_once_in_an_interval() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        let after = |ms| began + Duration::from_millis(ms);
        let due = [0, 20, 999, 1_000, 1_999, 2_500].map(|ms| pace.is_due(after(ms)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
