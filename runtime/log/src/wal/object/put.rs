//! One object's way into the store.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;

use super::keys::Keys;
use super::seal::{SEAL_BYTES, Seal};
use crate::error::{LogError, Result};
use crate::store::Store;

/// The first wait before a put is tried again; each is twice the one before, with a random part on top.
const RETRY_DELAY_MIN: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// How often a recovery tries again what the store refuses, before it says so.
const RECOVERY_RETRIES_MAX: usize = 8;

/// Puts a group under its number, for as long as it takes. What an earlier attempt has put, whose answer was lost, is
/// found there and is success.
///
/// Errors: whoever else has the number.
pub(super) async fn put_group(store: &Store, keys: &Keys, number: u64, group: Bytes) -> Result<()> {
    let key = keys.of(number);
    let put = || async {
        match store.put_new(&key, vec![group.clone()]).await {
            Ok(_) => Ok(None),
            Err(LogError::AlreadyExists { .. }) => occupant(store, &key).await.map(Some),
            Err(error) => Err(error),
        }
    };
    let occupied = put
        .retry(backoff().without_max_times())
        .notify(|error, wait| tracing::warn!(%error, ?wait, "the write-ahead log could not be put, it is tried again"))
        .await?;
    match occupied {
        None => Ok(()),
        Some(reason) => Err(LogError::WalPoisoned {
            reason: format!("object {key}: {reason}"),
        }),
    }
}

/// Who has a number that was to be ours.
async fn occupant(store: &Store, key: &str) -> Result<String> {
    Ok(match seal_at(store, key).await? {
        Some(seal) => format!("incarnation {} has sealed the log", seal.by),
        None => "somebody else has written it".into(),
    })
}

/// The seal that the object is; nothing where it is something else.
pub(super) async fn seal_at(store: &Store, key: &str) -> Result<Option<Seal>> {
    match store.get_range(key, 0..SEAL_BYTES as u64).await {
        Ok(bytes) => Ok(Seal::decode(&bytes).ok()),
        Err(LogError::RangeMismatch { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tries again what the store refuses, a few times.
pub(super) async fn with_retries<T, F: Future<Output = Result<T>>>(ask: impl FnMut() -> F) -> Result<T> {
    ask.retry(backoff().with_max_times(RECOVERY_RETRIES_MAX))
        .when(|error| matches!(error, LogError::Store { .. } | LogError::Io { .. }))
        .await
}

fn backoff() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_jitter()
}
