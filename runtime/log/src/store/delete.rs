//! Deleting objects, many with one request where the store can.

use std::collections::HashSet;

use futures::StreamExt;
use futures::stream::iter;
use object_store::ObjectStore;
use object_store::path::Path;

use super::{parse, store_error};
use crate::error::Result;

/// How many keys one request of the S3 protocol may name.
const REQUEST_KEYS_MAX: usize = 1_000;

/// Deletes all; of failures the first is told, after the rest was tried.
pub(super) async fn delete_all(objects: &dyn ObjectStore, keys: Vec<String>) -> Result<()> {
    let mut paths = keys.iter().map(|key| parse(key)).collect::<Result<Vec<Path>>>()?;
    let mut seen = HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let mut failed = None;
    for request in paths.chunks(REQUEST_KEYS_MAX) {
        let first = request.first().map_or("", |path| path.as_ref()).to_string();
        let paths: Vec<_> = request.iter().cloned().map(Ok).collect();
        let mut deleted = objects.delete_stream(iter(paths).boxed());
        while let Some(answer) = deleted.next().await {
            match answer {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => {
                    failed.get_or_insert(store_error(&first, "delete", 0, error));
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
