//! Reading a log from its trim floor to its seal, or to the first missing number.

use std::path::PathBuf;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use uuid::Uuid;

use super::keys::{Keys, Numbered};
use super::put::{seal_at, with_retries};
use super::seal::Seal;
use super::sealing::run_from;
use crate::error::{LogError, Result};
use crate::store::Store;
use crate::wal::ReplaySummary;
use crate::wal::frame::{Frame, split_frame};
use crate::wal::group::{GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, HeaderFault, split_group};

/// The most a group and its header take.
const OBJECT_BYTES_MAX: u64 = (GROUP_HEADER_BYTES + GROUP_BYTES_MAX) as u64;
/// How many objects are fetched at once, and how many bytes, unless one is larger.
const GETS_MAX: usize = 8;
const GET_BYTES_MAX: u64 = 64 << 20;

/// Reads one log. `visit` gets each frame at or above `floor`, in order, a group once all of it was found right.
///
/// Errors: [`LogError::WalDamaged`] when an object that was acknowledged is missing or is not what was written,
/// [`LogError::WalOther`], [`LogError::WalNotUnderstood`], [`LogError::NotFound`] for one that was deleted meanwhile,
/// [`LogError::Store`], and whatever `visit` gives, which stops the replay.
pub(super) async fn replay_log(
    store: &Store,
    keys: &Keys,
    wal_id: Uuid,
    floor: u64,
    visit: &mut (dyn FnMut(Frame) -> Result<()> + Send),
) -> Result<ReplaySummary> {
    let listed = with_retries(|| store.list_objects(keys.folder())).await?;
    let mut there = keys.numbered(&listed);
    there.retain(|object| object.number >= floor);
    let run = run_from(floor, &there);
    let mut walk = Walk {
        keys,
        wal_id,
        next: floor,
        position: None,
        summary: ReplaySummary::default(),
    };
    let mut gets = Gets::new(store, keys, &there[..run]);
    while let Some((object, bytes)) = gets.next().await {
        if walk.enter(object, &bytes?, visit)? {
            let behind = there.partition_point(|other| other.number <= object.number);
            return walk.end(store, &there[behind..]).await;
        }
    }
    walk.end(store, &there[run..]).await
}

/// Objects on their way from the store, in order.
struct Gets<'a> {
    store: &'a Store,
    keys: &'a Keys,
    waiting: std::slice::Iter<'a, Numbered>,
    running: FuturesOrdered<BoxFuture<'a, (Numbered, Result<Bytes>)>>,
    bytes: u64,
}

impl<'a> Gets<'a> {
    fn new(store: &'a Store, keys: &'a Keys, objects: &'a [Numbered]) -> Gets<'a> {
        Gets {
            store,
            keys,
            waiting: objects.iter(),
            running: FuturesOrdered::new(),
            bytes: 0,
        }
    }

    async fn next(&mut self) -> Option<(Numbered, Result<Bytes>)> {
        while let Some(object) = self.waiting.as_slice().first().copied()
            && (self.running.is_empty() || self.running.len() < GETS_MAX && self.bytes + object.bytes <= GET_BYTES_MAX)
        {
            self.waiting.next();
            self.bytes += object.bytes;
            let (store, key) = (self.store, self.keys.of(object.number));
            self.running.push_back(Box::pin(
                async move { (object, get_whole(store, &key, object.bytes).await) },
            ));
        }
        let got = self.running.next().await;
        self.bytes -= got.as_ref().map_or(0, |(object, _)| object.bytes);
        got
    }
}

pub(super) async fn get_whole(store: &Store, key: &str, bytes: u64) -> Result<Bytes> {
    if bytes > OBJECT_BYTES_MAX {
        return Err(LogError::WalNotUnderstood {
            path: key.into(),
            position: 0,
            reason: format!("the object has {bytes} bytes, at most {OBJECT_BYTES_MAX} are understood"),
        });
    }
    with_retries(|| store.get_range(key, 0..bytes)).await
}

/// Where a replay stands.
struct Walk<'a> {
    keys: &'a Keys,
    wal_id: Uuid,
    /// The number the next object must have.
    next: u64,
    /// The log position it must have; any before the first one was read.
    position: Option<u64>,
    summary: ReplaySummary,
}

impl Walk<'_> {
    /// Visits the frames of an object. Answers whether it is the seal.
    fn enter(
        &mut self,
        object: Numbered,
        bytes: &[u8],
        visit: &mut (dyn FnMut(Frame) -> Result<()> + Send),
    ) -> Result<bool> {
        if object.may_be_seal() {
            let seal = Seal::decode(bytes).map_err(|fault| self.faulty(fault))?;
            self.check_place(seal.wal_id, seal.number)?;
            return Ok(true);
        }
        let (header, payload) = split_group(bytes).map_err(|fault| self.faulty(fault))?;
        self.check_place(header.wal_id, header.number)?;
        if let Some(position) = self.position.filter(|position| *position != header.position) {
            return Err(self.damaged(
                0,
                format!("the group is at log position {}, expected {position}", header.position),
            ));
        }
        self.visit(&header, payload, visit)?;
        Ok(false)
    }

    fn check_place(&self, wal_id: Uuid, number: u64) -> Result<()> {
        if wal_id != self.wal_id {
            return Err(LogError::WalOther {
                path: self.path(),
                found: wal_id,
                expected: self.wal_id,
            });
        }
        if number != self.next {
            return Err(self.damaged(0, format!("it says that it is number {number}")));
        }
        Ok(())
    }

    fn visit(
        &mut self,
        header: &GroupHeader,
        mut payload: &[u8],
        visit: &mut (dyn FnMut(Frame) -> Result<()> + Send),
    ) -> Result<()> {
        for _ in 0..header.frame_count {
            // The checksum was right, so this is what was written: leaving it out would lose it.
            let frame = split_frame(&mut payload)
                .and_then(Frame::decode)
                .map_err(|reason| self.not_understood(reason))?;
            visit(frame)?;
            self.summary.frames += 1;
        }
        self.summary.groups += 1;
        self.summary.durable_end = header.end_position();
        self.position = Some(header.end_position());
        self.next += 1;
        Ok(())
    }

    /// No group has the next number: nothing has, or the seal. Ends the log here, unless something behind it knows that
    /// there was one.
    async fn end(mut self, store: &Store, behind: &[Numbered]) -> Result<ReplaySummary> {
        for object in behind.iter().filter(|object| object.may_be_seal()) {
            let key = self.keys.of(object.number);
            let seal = with_retries(|| seal_at(store, &key)).await?;
            if seal.is_some_and(|seal| seal.present_end > self.next) {
                let reason = format!(
                    "the group is missing, the seal at {} knows that it was stored",
                    object.number
                );
                return Err(self.damaged(0, reason));
            }
        }
        let mut first_position = None;
        for object in behind.iter().filter(|object| !object.may_be_seal()) {
            let Some(header) = head_of(store, &self.keys.of(object.number)).await? else {
                continue;
            };
            let first_position = *first_position.get_or_insert(header.position);
            // Without a group before the gap its end is not known; whoever knows all below the first one behind it does.
            let missing = match self.position {
                Some(position) => header.durable_end > position,
                None => header.durable_end >= first_position,
            };
            if missing {
                let reason = format!(
                    "the group is missing, object {} knows that it was stored",
                    object.number
                );
                return Err(self.damaged(header.durable_end, reason));
            }
        }
        let groups = behind.iter().filter(|object| !object.may_be_seal());
        self.summary.cut_bytes = groups.map(|object| object.bytes).sum();
        Ok(self.summary)
    }

    fn path(&self) -> PathBuf {
        self.keys.of(self.next).into()
    }

    fn faulty(&self, fault: HeaderFault) -> LogError {
        match fault {
            HeaderFault::Damaged(reason) => self.damaged(0, reason),
            HeaderFault::NotUnderstood(reason) => self.not_understood(reason),
        }
    }

    /// Objects are stored whole or not at all, so there is no torn one to cut.
    fn damaged(&self, durable_end: u64, reason: String) -> LogError {
        let log_position = self.position.unwrap_or(0);
        LogError::WalDamaged {
            path: self.path(),
            position: 0,
            log_position,
            durable_end: durable_end.max(log_position + 1),
            reason,
        }
    }

    fn not_understood(&self, reason: String) -> LogError {
        LogError::WalNotUnderstood {
            path: self.path(),
            position: 0,
            reason,
        }
    }
}

/// The header of the group that the object starts with.
pub(super) async fn head_of(store: &Store, key: &str) -> Result<Option<GroupHeader>> {
    let bytes = match with_retries(|| store.get_range(key, 0..GROUP_HEADER_BYTES as u64)).await {
        Err(LogError::RangeMismatch { .. }) => return Ok(None),
        bytes => bytes?,
    };
    Ok(bytes.first_chunk().and_then(|head| GroupHeader::decode(head).ok()))
}
