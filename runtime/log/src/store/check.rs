//! Whether a store gives what the log relies on: tried out on the store itself, under a prefix of its own.
//!
//! `doctor` runs this before an operator trusts a store with data, and the tests run it over every kind of store.

use bytes::Bytes;
use futures::future::join_all;

use super::Store;
use crate::error::LogError;

/// How many put at once in a race.
pub const RACE_WRITERS: usize = 8;
/// How many races are run, each for another key.
pub const RACE_ROUNDS: usize = 16;
/// Length of what each writer puts: longer than one packet, so that puts do overlap.
const RACE_BYTES: usize = 16 << 10;

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What was seen, or what is wrong and what to do about it.
    pub result: Result<String, String>,
}

/// Tries everything out under `prefix`, with keys that carry `random`, and deletes what it put. The first check fails
/// where the store cannot be reached at all; the rest are then left out.
pub async fn run(store: &Store, prefix: &str, random: u128) -> Vec<Check> {
    let trial = Trial {
        store,
        prefix: format!("{}/check_{random:032x}", prefix.trim_matches('/'))
            .trim_start_matches('/')
            .to_string(),
    };
    let first = Check {
        name: "put and get",
        result: trial.put_and_get().await,
    };
    let mut checks = vec![first];
    if checks[0].result.is_ok() {
        for (name, result) in [
            ("create-only put", trial.refuses_to_overwrite().await),
            ("create-only race", trial.race().await),
            ("ranged get", trial.ranged_get().await),
            ("etags", trial.etags().await),
            ("listing", trial.listing().await),
        ] {
            checks.push(Check { name, result });
        }
    }
    checks.push(Check {
        name: "delete",
        result: trial.delete().await,
    });
    checks
}

/// What a check gives: what was seen, or what is wrong.
type Seen = Result<String, String>;

struct Trial<'a> {
    store: &'a Store,
    prefix: String,
}

impl Trial<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn put(&self, name: &str, content: Bytes) -> Result<Option<String>, LogError> {
        self.store.put_new(&self.key(name), vec![content]).await
    }

    async fn put_and_get(&self) -> Seen {
        let content = Bytes::from_static(b"put and get");
        let reach = |e: LogError| format!("{e}; check the address, the bucket and the credentials");
        self.put("whole", content.clone()).await.map_err(reach)?;
        let found = self.store.get(&self.key("whole")).await.map_err(reach)?;
        expect(found == content, || {
            "an object came back with other bytes than were put: do not use this store".into()
        })?;
        Ok("an object is read as it was put".into())
    }

    async fn refuses_to_overwrite(&self) -> Seen {
        let first = Bytes::from_static(b"first");
        self.put("once", first.clone()).await.map_err(told)?;
        let second = self.put("once", Bytes::from_static(b"other")).await;
        let found = self.store.get(&self.key("once")).await.map_err(told)?;
        match second {
            Err(LogError::AlreadyExists { .. }) if found == first => Ok("an object is not overwritten".into()),
            Err(LogError::AlreadyExists { .. }) => {
                Err(format!("a put was refused and overwrote all the same. {NO_CREATE}"))
            }
            Err(e) => Err(format!("{e}. {NO_CREATE}")),
            Ok(_) => Err(format!("an object was overwritten. {NO_CREATE}")),
        }
    }

    async fn race(&self) -> Seen {
        for round in 0..RACE_ROUNDS {
            self.race_once(round).await?;
        }
        Ok(format!(
            "one winner in each of {RACE_ROUNDS} races of {RACE_WRITERS} writers"
        ))
    }

    async fn race_once(&self, round: usize) -> Result<(), String> {
        let name = format!("race/{round}");
        let content = |writer: usize| Bytes::from(vec![writer as u8; RACE_BYTES]);
        let puts = join_all((0..RACE_WRITERS).map(|writer| self.put(&name, content(writer)))).await;
        let mut winners = Vec::new();
        for (writer, put) in puts.into_iter().enumerate() {
            match put {
                Ok(_) => winners.push(writer),
                Err(LogError::AlreadyExists { .. }) => {}
                Err(e) => return Err(format!("a put failed in a race: {e}")),
            }
        }
        let [winner] = winners[..] else {
            let count = winners.len();
            return Err(format!(
                "{count} of {RACE_WRITERS} writers of one key were told that they had made it. {NO_CREATE}"
            ));
        };
        let found = self.store.get(&self.key(&name)).await.map_err(told)?;
        expect(found == content(winner), || {
            format!("the object is not the one whose put was answered. {NO_CREATE}")
        })
    }

    async fn ranged_get(&self) -> Seen {
        let content: Vec<u8> = (0..=255).collect();
        self.put("range", content.clone().into()).await.map_err(told)?;
        let key = self.key("range");
        for range in [0..1u64, 7..99, 255..256, 0..256] {
            let found = self.store.get_range(&key, range.clone()).await.map_err(told)?;
            expect(found == content[range.start as usize..range.end as usize], || {
                format!("bytes {range:?} of an object are not those that were put: do not use this store")
            })?;
        }
        let beyond = self.store.get_range(&key, 200..300).await;
        expect(beyond.is_err(), || {
            "a range beyond the end of an object was answered".into()
        })?;
        Ok("exactly the bytes that were asked for".into())
    }

    async fn etags(&self) -> Seen {
        let content = Bytes::from_static(b"of this etag");
        let etag = self.put("etag", content.clone()).await.map_err(told)?;
        let key = self.key("etag");
        let Some(etag) = etag else {
            let found = self.store.get_range_of(&key, None, 0..4).await.map_err(told)?;
            expect(found == content[..4], || "a ranged get failed".into())?;
            return Ok(
                "this store has none that follow the content; segments are held to their checksums alone".into(),
            );
        };
        let found = self.store.get_range_of(&key, Some(&etag), 0..4).await.map_err(told)?;
        expect(found == content[..4], || {
            "a get with the right etag gave other bytes".into()
        })?;
        match self.store.get_range_of(&key, Some("\"another\""), 0..4).await {
            Err(LogError::Changed { .. }) => Ok("a read of another etag is refused".into()),
            Err(e) => Err(format!("a read of another etag failed in another way: {e}")),
            Ok(_) => Err("a read of another etag was answered: the store ignores If-Match".into()),
        }
    }

    async fn listing(&self) -> Seen {
        let names = ["list/a/1", "list/a/2", "list/ab/3"];
        for name in names {
            self.put(name, Bytes::from_static(b"listed")).await.map_err(told)?;
        }
        let under = self.store.list_objects(&self.key("list/a")).await.map_err(told)?;
        let found: Vec<String> = under.iter().map(|object| object.key.clone()).collect();
        expect(
            found == names[..2].iter().map(|name| self.key(name)).collect::<Vec<_>>(),
            || {
                format!(
                    "two objects were put under a prefix, {found:?} are listed: what was put must be listed at once"
                )
            },
        )?;
        expect(under.iter().all(|object| object.bytes == 6), || {
            "a listing tells wrong lengths".into()
        })?;
        Ok("what was put is listed at once".into())
    }

    /// Runs last, and takes away what the others left.
    async fn delete(&self) -> Seen {
        let keys = self.store.list(&self.prefix).await.map_err(told)?;
        let count = keys.len();
        self.store.delete_all(keys.clone()).await.map_err(told)?;
        let left = self.store.list(&self.prefix).await.map_err(told)?;
        expect(left.is_empty(), || {
            format!(
                "{} objects are listed after they were deleted: check the permission to delete",
                left.len()
            )
        })?;
        self.store
            .delete_all(keys)
            .await
            .map_err(|e| format!("deleting what is not there failed: {e}"))?;
        Ok(format!("the {count} objects of these checks are gone"))
    }
}

const NO_CREATE: &str = "Use a store whose PUT with If-None-Match: * is atomic; on this one two agents could write the \
                         same log";

fn told(error: LogError) -> String {
    error.to_string()
}

fn expect(holds: bool, wrong: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(wrong()) }
}
