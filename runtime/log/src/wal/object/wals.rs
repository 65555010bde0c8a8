//! The logs of incarnations in one object store, each in a folder named by its id.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use uuid::Uuid;

use super::floor::first_kept;
use super::keys::{Keys, log_of};
use super::replay::replay_log;
use super::sealing::seal_log;
use super::{ObjectWal, ObjectWalSettings};
use crate::error::Result;
use crate::store::Store;
use crate::wal::ReplaySummary;
use crate::wal::frame::Frame;
use crate::wal::seam::{Wal, WalStore};

/// The logs under one prefix of a store. Whoever reaches the store can take over any of them.
#[derive(Debug)]
pub struct ObjectWals {
    store: Store,
    settings: ObjectWalSettings,
}

impl ObjectWals {
    /// Asks the store for nothing yet.
    pub fn new(store: Store, settings: ObjectWalSettings) -> ObjectWals {
        ObjectWals { store, settings }
    }

    fn keys(&self, wal_id: Uuid) -> Keys {
        Keys::new(&self.settings.prefix, wal_id)
    }

    async fn remove_all(&self, keys: Keys) -> Result<()> {
        let listed = self.store.list_objects(keys.folder()).await?;
        let objects = keys.numbered(&listed).into_iter();
        // A put of the log's dead writer may still be on its way. It must meet the seal: without one it would be stored,
        // and its writer, should it live after all, would acknowledge it. The seal that it meets is the first at or above
        // the trim floor, which is not known here. It need not be the lowest: a sealer that had read the floor before it
        // moved has put its own at a number that was trimmed already, where nothing will be put again. So all stay.
        let groups = objects.filter(|object| !object.may_be_seal());
        self.store
            .delete_all(groups.map(|object| keys.of(object.number)).collect())
            .await
    }

    async fn logs(&self) -> Result<Vec<Uuid>> {
        let listed = self.store.list_objects(&self.settings.prefix).await?;
        let mut ids = Vec::new();
        for object in listed {
            let log = log_of(&self.settings.prefix, &object.key);
            if let Some(id) = log.filter(|id| !is_seal_sized(object.bytes) && ids.last() != Some(id)) {
                ids.push(id);
            }
        }
        Ok(ids)
    }
}

fn is_seal_sized(bytes: u64) -> bool {
    bytes == super::seal::SEAL_BYTES as u64
}

impl WalStore for ObjectWals {
    fn create(&self, wal_id: Uuid) -> BoxFuture<'_, Result<Arc<dyn Wal>>> {
        let create = async move {
            let wal = ObjectWal::create(self.store.clone(), self.settings.clone(), wal_id).await?;
            Ok(Arc::new(wal) as Arc<dyn Wal>)
        };
        create.boxed()
    }

    fn exists(&self, _wal_id: Uuid) -> BoxFuture<'_, Result<bool>> {
        futures::future::ready(Ok(true)).boxed()
    }

    fn seal(&self, wal_id: Uuid, by: Uuid, floor: u64) -> BoxFuture<'_, Result<()>> {
        async move { seal_log(&self.store, &self.keys(wal_id), wal_id, by, floor).await }.boxed()
    }

    fn replay<'a>(
        &'a self,
        wal_id: Uuid,
        floor: u64,
        visit: &'a mut (dyn FnMut(Frame) -> Result<()> + Send),
    ) -> BoxFuture<'a, Result<ReplaySummary>> {
        async move { replay_log(&self.store, &self.keys(wal_id), wal_id, floor, visit).await }.boxed()
    }

    // The seals stay: 64 bytes for each log that had to be taken over, and some more where its writer still wrote or several
    // sealed it. A log that was closed has none and goes whole: its writer has ended, so nothing of it can be acknowledged,
    // and what a put repeated on the way may still leave behind is found by `list`.
    fn remove(&self, wal_id: Uuid) -> BoxFuture<'_, Result<()>> {
        self.remove_all(self.keys(wal_id)).boxed()
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Uuid>>> {
        self.logs().boxed()
    }

    fn first_kept(&self, wal_id: Uuid) -> BoxFuture<'_, Result<u64>> {
        async move { first_kept(&self.store, &self.keys(wal_id)).await }.boxed()
    }
}
