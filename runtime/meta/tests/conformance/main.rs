//! What every database behind `Metadata` must hold. Each test runs on both, with the database in its name.

/// Makes two tests of each of these functions: one on SQLite, one on PostgreSQL. A function that is missing here is dead
/// code, which the lints refuse.
macro_rules! on_both {
    ($($name:ident,)+) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(crate::Fixture::sqlite().await).await;
                }
            )+
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    super::$name(crate::Fixture::postgres().await).await;
                }
            )+
        }
    };
}

mod activations;
mod agents;
mod cached;
mod fixture;
mod groups;
mod lease_time;
mod leases;
mod merging;
mod modules;
mod partitions;
mod pipelines;
mod producers;
mod races;
mod retention;
mod schema;
mod segments;
mod takeover;
mod topics;
mod wals;

use std::time::Duration;

use millstream_batch::{Epoch, Offset};
use millstream_meta::{MetaError, NewSegment};

use fixture::Fixture;

const NOW_MS: i64 = 1_700_000_000_000;
const TASKS: u64 = 16;
/// No test takes so long.
const LEASE: Duration = Duration::from_secs(3600);

/// A segment of 10 bytes stored.
fn new_segment(key: &str, base: u64, end: u64) -> NewSegment {
    NewSegment {
        key: key.to_string(),
        base_offset: Offset(base),
        end_offset: Offset(end),
        record_count: end - base,
        raw_bytes: 20,
        stored_bytes: 10,
        min_timestamp_ms: -5,
        max_timestamp_ms: 5,
        created_at_ms: NOW_MS,
        etag: None,
    }
}

fn is_fenced(error: &MetaError, epoch: Epoch) -> bool {
    matches!(error, MetaError::Fenced { epoch: found, .. } if *found == epoch)
}

fn is_superseded(error: &MetaError) -> bool {
    matches!(error, MetaError::Superseded { .. })
}
