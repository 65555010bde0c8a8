//! Reading the bucket: manifests, and of each segment its end.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use millstream_log::{LogError, SegmentHead, Store, StoredObject};
use millstream_meta::SegmentRow;
use uuid::Uuid;

use super::report::Why;
use crate::{
    error::Result,
    sweep::{Kind, Manifest, kind_of},
};

/// Ends of segments that are read at once.
const HEADS_AT_ONCE: usize = 64;

/// What a topic's folder holds besides segments.
#[derive(Default)]
pub(super) struct TopicFolder {
    /// Every manifest, with its key, the newest last.
    pub(super) manifests: Vec<(String, u64, Manifest)>,
    /// The numbers of the partitions that have a folder.
    pub(super) partitions: Vec<u32>,
    pub(super) left: Vec<(StoredObject, Why)>,
}

/// The segments of one partition's folder, by the topic that their headers name.
#[derive(Default)]
pub(super) struct Segments {
    pub(super) by_topic: BTreeMap<Uuid, Vec<SegmentRow>>,
    /// The greatest pipeline version, by topic.
    pub(super) pipelines: BTreeMap<Uuid, u64>,
    pub(super) left: Vec<(StoredObject, Why)>,
}

impl TopicFolder {
    /// Lists a folder and reads its manifests.
    pub(super) async fn read(store: &Store, name: &str) -> Result<TopicFolder> {
        let listed = store.list_folder(name).await?;
        let mut folder = TopicFolder::default();
        for path in listed.folders {
            let number = path.rsplit('/').next().and_then(|number| number.parse::<u32>().ok());
            folder
                .partitions
                .extend(number.filter(|number| format!("{name}/{number}") == path));
        }
        folder.partitions.sort_unstable();
        let mut manifests = Vec::new();
        for object in listed.objects {
            if kind_of(name, &object.key) != Some(Kind::Manifest) {
                folder.left.push((object, foreign("no name of the broker's making")));
                continue;
            }
            match read_manifest(store, name, &object.key).await? {
                Ok(manifest) => manifests.push((object, manifest)),
                Err(why) => folder.left.push((object, why)),
            }
        }
        manifests.sort_by_key(|(object, manifest)| (manifest.config_version, object.modified_ms));
        let manifests = manifests
            .into_iter()
            .map(|(object, manifest)| (object.key, object.bytes, manifest));
        folder.manifests = manifests.collect();
        Ok(folder)
    }
}

async fn read_manifest(store: &Store, name: &str, key: &str) -> Result<Result<Manifest, Why>> {
    let bytes = match store.get(key).await {
        Err(LogError::NotFound { .. }) => return Ok(Err(foreign("it went while it was read"))),
        bytes => bytes?,
    };
    Ok(match Manifest::read(&bytes) {
        Ok(manifest) if manifest.name == name => Ok(manifest),
        Ok(manifest) => Err(foreign(&format!("it describes {:?}", manifest.name))),
        Err(reason) => Err(Why::Damaged { reason }),
    })
}

impl Segments {
    /// Lists the folder of a partition and reads the end of each segment. `block_bytes` is what their blocks aim at.
    pub(super) async fn read(store: &Store, topic: &str, partition: u32, block_bytes: u64) -> Result<Segments> {
        let listed = store.list_objects(&format!("{topic}/{partition}")).await?;
        let mut segments = Segments::default();
        let heads = stream::iter(listed).map(|object| async move {
            let head = match kind_of(topic, &object.key) {
                Some(Kind::Segment { partition: found }) if found == partition => {
                    SegmentHead::read(store, &object.key, object.bytes, block_bytes).await
                }
                _ => return Ok((object, Err(foreign("no name of the broker's making")))),
            };
            match head {
                Ok(head) => Ok((object, Ok(head))),
                Err(error) => unreadable(error).map(|why| (object, Err(why))),
            }
        });
        let mut heads = heads.buffer_unordered(HEADS_AT_ONCE);
        while let Some((object, head)) = heads.try_next().await? {
            match head.and_then(|head| placed(partition, &object, head)) {
                Ok(head) => segments.add(object, head),
                Err(why) => segments.left.push((object, why)),
            }
        }
        Ok(segments)
    }

    fn add(&mut self, object: StoredObject, head: SegmentHead) {
        let topic_id = head.identity.topic_id;
        let version = self.pipelines.entry(topic_id).or_insert(0);
        *version = head.pipeline_version.unwrap_or(0).max(*version);
        self.by_topic.entry(topic_id).or_default().push(SegmentRow {
            key: object.key,
            base_offset: head.identity.base_offset,
            end_offset: head.footer.end_offset,
            epoch: head.identity.epoch,
            record_count: head.footer.record_count,
            raw_bytes: head.raw_bytes,
            stored_bytes: head.stored_bytes,
            min_timestamp_ms: head.footer.min_timestamp_ms,
            max_timestamp_ms: head.footer.max_timestamp_ms,
            created_at_ms: head.identity.created_at_ms,
            etag: head.etag,
        });
    }
}

/// Damage is the object's; anything else is the store's, and the rebuild cannot go on without an answer.
fn unreadable(error: LogError) -> Result<Why> {
    match error {
        LogError::SegmentCrc { .. }
        | LogError::SegmentDamaged { .. }
        | LogError::SegmentVersion { .. }
        | LogError::Batch { .. }
        | LogError::RangeMismatch { .. }
        | LogError::NotFound { .. }
        | LogError::Changed { .. } => Ok(Why::Damaged {
            reason: error.to_string(),
        }),
        error => Err(error.into()),
    }
}

/// Whether the segment is what its key says.
fn placed(partition: u32, object: &StoredObject, head: SegmentHead) -> Result<SegmentHead, Why> {
    let identity = &head.identity;
    let base = format!("/seg_{:020}_", identity.base_offset.0);
    if identity.partition != partition || !object.key.contains(&base) {
        let (found, base) = (identity.partition, identity.base_offset);
        return Err(foreign(&format!(
            "it says that it is of partition {found} from offset {base} on"
        )));
    }
    if identity.base_offset >= head.footer.end_offset || i64::try_from(head.footer.end_offset.0).is_err() {
        let reason = format!("it says that it ends at offset {}", head.footer.end_offset);
        return Err(Why::Damaged { reason });
    }
    Ok(head)
}

pub(super) fn foreign(reason: &str) -> Why {
    Why::Foreign {
        reason: reason.to_owned(),
    }
}
