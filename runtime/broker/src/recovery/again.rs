//! Asking the metadata again where its answer did not come.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use millstream_meta::MetaError;

const TRIES_MAX: usize = 5;
const DELAY_MIN: Duration = Duration::from_millis(50);
const DELAY_MAX: Duration = Duration::from_secs(2);

/// Asks a few times, of what may be asked again after an answer that was lost behind a change that happened.
pub(crate) async fn again<T, F: Future<Output = Result<T, MetaError>>>(ask: impl FnMut() -> F) -> Result<T, MetaError> {
    let delays = ExponentialBuilder::default()
        .with_min_delay(DELAY_MIN)
        .with_max_delay(DELAY_MAX)
        .with_max_times(TRIES_MAX)
        .with_jitter();
    ask.retry(delays)
        .when(|error| matches!(error, MetaError::Unavailable { .. }))
        .notify(|error, delay| tracing::warn!(%error, ?delay, "the metadata is asked again"))
        .await
}
