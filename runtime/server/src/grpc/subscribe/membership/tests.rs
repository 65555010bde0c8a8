//! Members over a broker of their own.

use futures::FutureExt as _;
use millstream_broker::{NewTopic, Settings, TopicConfig, WalKind, Wals};
use millstream_log::{DiskWals, DiskWalsSettings, ObjectWalSettings, ObjectWals, Store, SyncPolicy};
use millstream_meta::{Metadata, MetadataSettings};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::*;
use crate::parts::SystemClock;

const GROUP: &str = "g";
/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A broker with a topic of two partitions, all of it in a folder.
struct World {
    broker: Arc<Broker>,
    _dir: TempDir,
}

impl World {
    async fn new() -> World {
        let dir = TempDir::new().unwrap();
        let database = format!("sqlite:{}", dir.path().join("metadata.db").display());
        let metadata = Metadata::open_with(&MetadataSettings::at(database)).await.unwrap();
        let store = Store::memory();
        let disk = DiskWalsSettings {
            file_bytes: 1 << 20,
            sync: SyncPolicy::Never,
            ..DiskWalsSettings::new(dir.path().join("wal"))
        };
        let wals = Wals {
            disk: Arc::new(DiskWals::new(disk)),
            object: Arc::new(ObjectWals::new(store.clone(), ObjectWalSettings::default())),
            kind: WalKind::Disk,
        };
        let settings = Settings {
            agent_name: "a".to_owned(),
            module_threads: 1,
            ..Settings::default()
        };
        let broker = Broker::open(settings, Arc::new(SystemClock), metadata, store, wals);
        let broker = broker.await.unwrap();
        let topic = NewTopic {
            name: "t".to_owned(),
            partitions: 2,
            config: TopicConfig::default(),
        };
        broker.create_topic(topic).await.unwrap();
        World { broker, _dir: dir }
    }

    async fn join(&self, memberships: &Memberships, session_ms: u32, start: Start) -> Result<Membership, Refusal> {
        let heartbeat = GroupHeartbeat {
            group: GROUP.to_owned(),
            topics: vec!["t".to_owned()],
            session_timeout_ms: session_ms,
            ..GroupHeartbeat::default()
        };
        Membership::join(memberships, self.broker.clone(), heartbeat, start).await
    }

    async fn members(&self) -> usize {
        self.broker.group(GROUP).await.map_or(0, |group| group.members.len())
    }
}

fn told(refusal: Refusal) -> (Code, String) {
    let status = Status::from(refusal);
    let reason = status.get_details_error_info().unwrap().reason;
    (status.code(), reason)
}

#[tokio::test]
async fn there_is_room_for_so_many_members_and_for_another_once_one_has_left() {
    let (world, memberships) = (World::new().await, Memberships::new(1));
    let one = world.join(&memberships, 0, Start::Earliest).await.unwrap();
    let refused = world.join(&memberships, 0, Start::Earliest).await.err().unwrap();
    assert_eq!(told(refused), (Code::ResourceExhausted, "MEMBERSHIPS_FULL".to_owned()));
    assert_eq!(world.members().await, 1);
    one.leave().await;
    world.join(&memberships, 0, Start::Earliest).await.unwrap();
}

#[tokio::test]
async fn who_has_gone_before_its_keeper_begins_joins_nothing() {
    let (world, memberships) = (World::new().await, Memberships::new(1));
    // Its keeper is made, and has not begun: there is one thread.
    assert!(world.join(&memberships, 0, Start::Earliest).now_or_never().is_none());
    while memberships.0.available_permits() == 0 {
        tokio::task::yield_now().await;
    }
    let none = world.broker.group(GROUP).await.unwrap_err();
    assert_eq!(none.reason(), "GROUP_UNKNOWN");
}

#[tokio::test]
async fn a_member_whose_keeper_has_ended_by_a_defect_is_none_after_its_session() {
    let (world, memberships) = (World::new().await, Memberships::new(1));
    let member = world.join(&memberships, 1_000, Start::Earliest).await.unwrap();
    member.change().await.unwrap().expect("it is told that it has joined");
    member.keeper.abort();
    timeout(PATIENCE, member.changed()).await.expect("it is noticed");
    let over = member.over().expect("its session is over");
    assert_eq!(told(over), (Code::Aborted, "MEMBER_UNKNOWN".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_read_is_given_where_the_latest_is_asked_for_and_commits_nothing() {
    let (world, memberships) = (World::new().await, Memberships::new(1));
    let member = world.join(&memberships, 0, Start::Latest).await.unwrap();
    let absent = ("t".to_owned(), 7);
    let found = member.shared.beginnings(vec![absent.clone()]).await.unwrap();
    assert_eq!(found, [(absent, millstream_broker::Offset(0))]);
    let found = member.shared.beginnings(vec![("t".to_owned(), 1)]).await.unwrap();
    assert_eq!(found.len(), 1);
    let committed = world.broker.group_offsets(GROUP, &[]).await.unwrap();
    let committed: Vec<u32> = committed.iter().map(|offset| offset.partition).collect();
    assert_eq!(committed, [1]);
}

#[tokio::test]
async fn a_release_of_nothing_is_no_news() {
    let (world, memberships) = (World::new().await, Memberships::new(1));
    let member = world.join(&memberships, 0, Start::Earliest).await.unwrap();
    member.change().await.unwrap().expect("it is told that it has joined");
    member.release(&[]).unwrap();
    assert!(member.changed().now_or_never().is_none());
    assert!(member.shared.wake.notified().now_or_never().is_none());
}
