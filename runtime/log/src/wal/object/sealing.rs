//! Ending a log that another incarnation may still be writing.

use std::ops::Range;

use bytes::Bytes;
use futures::future::try_join_all;
use uuid::Uuid;

use super::keys::{Keys, Numbered};
use super::put::{seal_at, with_retries};
use super::seal::Seal;
use crate::error::{LogError, Result};
use crate::store::Store;

/// How many numbers are tried at once where the first was taken meanwhile: more than the other incarnation usually has puts
/// in flight, so that it cannot stay ahead.
const NUMBERS_AT_ONCE: u64 = 8;
/// How often all numbers that were tried may have been taken.
const ROUNDS_MAX: u64 = 1_000;

/// Sees to it that of the numbers from `floor` on the first one that is no group is a seal.
///
/// A seal is put create-only under the number that the other's next put needs, so of the two exactly one is stored: either
/// the group, and the seal at the next number counts, or the seal, and nothing behind it is ever acknowledged.
pub(super) async fn seal_log(store: &Store, keys: &Keys, wal_id: Uuid, by: Uuid, floor: u64) -> Result<()> {
    for round in 0..ROUNDS_MAX {
        // Looked through again each time, for a writer that is still at work is somewhere else by now.
        let listed = with_retries(|| store.list_objects(keys.folder())).await?;
        let mut there = keys.numbered(&listed);
        there.retain(|object| object.number >= floor);
        let present_end = floor + run_from(floor, &there) as u64;
        if is_sealed(store, keys, &there, present_end).await? {
            return Ok(());
        }
        // Mostly nobody writes any more, and one will do: seals stay for ever.
        let count = if round == 0 { 1 } else { NUMBERS_AT_ONCE };
        let seal = |number| Seal {
            wal_id,
            number,
            by,
            present_end,
        };
        if seal_one_of(store, keys, present_end..present_end + count, seal).await? {
            return Ok(());
        }
    }
    Err(LogError::WalPoisoned {
        reason: format!("log {wal_id} was written faster than it could be sealed"),
    })
}

/// How many objects there are without a gap, from `floor` on.
pub(super) fn run_from(floor: u64, there: &[Numbered]) -> usize {
    let numbers = (floor..).zip(there);
    numbers.take_while(|(number, object)| object.number == *number).count()
}

/// Whether a seal ends the log, or one knows of what is missing now. Then that is for the replay to tell, and a seal in
/// its place would only hide it.
async fn is_sealed(store: &Store, keys: &Keys, there: &[Numbered], present_end: u64) -> Result<bool> {
    for object in there.iter().filter(|object| object.may_be_seal()) {
        let key = keys.of(object.number);
        let seal = with_retries(|| seal_at(store, &key)).await?;
        if seal.is_some_and(|seal| object.number < present_end || seal.present_end > present_end) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts seals under all of these numbers. Answers whether one of them has one now.
// Those behind the first are left where they are: another sealer may be looking at them.
async fn seal_one_of(store: &Store, keys: &Keys, numbers: Range<u64>, seal: impl Fn(u64) -> Seal) -> Result<bool> {
    let puts = numbers.map(|number| put_seal(store, keys, seal(number)));
    Ok(try_join_all(puts).await?.contains(&true))
}

/// Whether a seal stands under the number now: this one, or another's.
async fn put_seal(store: &Store, keys: &Keys, seal: Seal) -> Result<bool> {
    let key = keys.of(seal.number);
    let bytes = Bytes::copy_from_slice(&seal.encode());
    match with_retries(|| store.put_new(&key, vec![bytes.clone()])).await {
        Ok(_) => Ok(true),
        Err(LogError::AlreadyExists { .. }) => Ok(with_retries(|| seal_at(store, &key)).await?.is_some()),
        Err(error) => Err(error),
    }
}
