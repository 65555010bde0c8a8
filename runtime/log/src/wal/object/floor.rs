//! Where a log begins, told without its trim floor.
//!
//! Objects below the floor are deleted in any order, so some may be left. What tells is what was known to be stored: a
//! number that is missing, and that an object behind it knows to have been there, was trimmed, and so was all below it.

use super::keys::{Keys, Numbered};
use super::put::{seal_at, with_retries};
use super::replay::head_of;
use crate::error::Result;
use crate::store::Store;

/// The first number from which on nothing is missing that was known to be stored; 0 where there is nothing.
///
/// Errors: those of the store.
pub(super) async fn first_kept(store: &Store, keys: &Keys) -> Result<u64> {
    let listed = with_retries(|| store.list_objects(keys.folder())).await?;
    let there = keys.numbered(&listed);
    let known = Known::of(store, keys, &there).await?;
    let begins = |at: &usize| *at == 0 || there[at - 1].number + 1 != there[*at].number;
    for at in (0..there.len()).rev().filter(begins) {
        if at == 0 || known.below(store, keys, &there[at..]).await? {
            return Ok(there[at].number);
        }
    }
    Ok(0)
}

/// What the end of a log knows about everything before it.
struct Known {
    /// Below this log position everything was stored.
    durable_end: u64,
    /// Below this number everything from the floor on was.
    present_end: u64,
}

impl Known {
    async fn of(store: &Store, keys: &Keys, there: &[Numbered]) -> Result<Known> {
        let mut known = Known {
            durable_end: 0,
            present_end: 0,
        };
        if let Some(last) = there.iter().rfind(|object| !object.may_be_seal()) {
            let head = head_of(store, &keys.of(last.number)).await?;
            known.durable_end = head.map_or(0, |head| head.durable_end);
        }
        for seal in there.iter().filter(|object| object.may_be_seal()) {
            let key = keys.of(seal.number);
            let seal = with_retries(|| seal_at(store, &key)).await?;
            known.present_end = seal.map_or(0, |seal| seal.present_end).max(known.present_end);
        }
        Ok(known)
    }

    /// Whether everything right below the first of these objects was stored.
    async fn below(&self, store: &Store, keys: &Keys, objects: &[Numbered]) -> Result<bool> {
        if self.present_end >= objects[0].number {
            return Ok(true);
        }
        let Some(first) = objects.iter().find(|object| !object.may_be_seal()) else {
            return Ok(false);
        };
        let head = head_of(store, &keys.of(first.number)).await?;
        Ok(head.is_some_and(|head| self.durable_end >= head.position && head.position > 0))
    }
}
