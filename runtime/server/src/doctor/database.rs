//! What an agent relies on of its database: that it can be written, how fast it answers, and what a server promises.

use std::time::Duration;

use millstream_broker::Clock as _;
use millstream_meta::{Examination, MetaError, Metadata, ServerFacts};

use super::{Finding, Seen};
use crate::{
    config::{MetadataUrl, Settings},
    parts::SystemClock,
};

/// Clocks that differ by more make a muddle of ages: of segments, and of objects that may be deleted.
const CLOCKS_APART_MS_MAX: i64 = 10_000;

/// Everything about the database that the settings name.
pub async fn findings(settings: &Settings, running: bool) -> Vec<Finding> {
    let url = settings.metadata_url();
    if running && matches!(url, MetadataUrl::Sqlite(_)) {
        return vec![Finding::new("database", Ok("the running agent has it open".to_owned()))];
    }
    let examined = async {
        let metadata = Metadata::open_with(&settings.metadata_settings(Duration::ZERO)).await?;
        let found = metadata.examine(uuid::Uuid::new_v4(), &|| SystemClock.now_ms()).await;
        Ok::<_, MetaError>((metadata.place().to_owned(), found?))
    };
    match examined.await {
        Err(error) => vec![Finding::new(
            "database",
            Err(format!("{error}; or choose another with --metadata")),
        )],
        Ok((place, found)) => match &found.server {
            None => vec![Finding::new("database", Ok(file(&url, &found)))],
            Some(server) => of_server(&place, &found, server),
        },
    }
}

fn file(url: &MetadataUrl, found: &Examination) -> String {
    format!("{url} answers and can be written, it has {} topics", found.topics)
}

fn of_server(place: &str, found: &Examination, server: &ServerFacts) -> Vec<Finding> {
    let (software, topics) = (&found.software, found.topics);
    vec![
        Finding::new(
            "database",
            Ok(format!(
                "{place} answers and can be written: {software}, it has {topics} topics"
            )),
        ),
        Finding::new("database: speed", Ok(speed(found))),
        Finding::new("database: promises", promises(server)),
        Finding::new("database: clock", clock(server.clock_ahead_ms)),
        Finding::new("database: TLS", Ok(tls(server))),
    ]
}

fn speed(found: &Examination) -> String {
    let show = |(median, longest): (Duration, Duration)| {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        format!("{:.2} ms (median) to {:.2} ms (longest)", ms(median), ms(longest))
    };
    format!(
        "a round trip takes {}, a transaction that writes {}",
        show(found.round_trip),
        show(found.commit)
    )
}

/// What is committed has to stay, and writers must not see half of each other.
fn promises(server: &ServerFacts) -> Seen {
    let ServerFacts {
        isolation,
        synchronous_commit,
        fsync,
        full_page_writes,
        ..
    } = server;
    if !fsync || !full_page_writes {
        return Err(
            "the server does not keep what it has committed when the power goes: set fsync = on and full_page_writes = on \
             in its postgresql.conf"
                .to_owned(),
        );
    }
    if isolation != "serializable" || synchronous_commit != "on" {
        return Err(format!(
            "a session has isolation {isolation} and synchronous_commit {synchronous_commit}, although it asks for \
             serializable and on: whatever stands between, such as a pooler, has to pass a session's options on"
        ));
    }
    Ok("isolation serializable, synchronous_commit on, fsync on, full_page_writes on".to_owned())
}

fn clock(ahead_ms: i64) -> Seen {
    let apart_ms = ahead_ms.unsigned_abs();
    let which = if ahead_ms < 0 { "behind" } else { "ahead of" };
    let seen = format!("{apart_ms} ms {which} this machine's");
    match apart_ms <= CLOCKS_APART_MS_MAX.unsigned_abs() {
        true => Ok(seen),
        false => Err(format!("{seen}: set both by NTP")),
    }
}

fn tls(server: &ServerFacts) -> String {
    match &server.tls {
        Some(version) => format!("in use, {version}"),
        None => {
            "not in use: right on this machine and in a network that you trust; elsewhere add ?sslmode=verify-full to \
                 the URL"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerFacts {
        ServerFacts {
            isolation: "serializable".to_owned(),
            synchronous_commit: "on".to_owned(),
            fsync: true,
            full_page_writes: true,
            tls: None,
            clock_ahead_ms: 3,
        }
    }

    #[test]
    fn a_server_that_forgets_or_mixes_up_is_not_trusted() {
        assert!(promises(&server()).is_ok());
        for (wrong, words) in [
            (
                ServerFacts {
                    fsync: false,
                    ..server()
                },
                "fsync = on",
            ),
            (
                ServerFacts {
                    synchronous_commit: "off".to_owned(),
                    ..server()
                },
                "synchronous_commit off",
            ),
            (
                ServerFacts {
                    isolation: "read committed".to_owned(),
                    ..server()
                },
                "read committed",
            ),
        ] {
            let told = promises(&wrong).unwrap_err();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn clocks_may_differ_by_seconds() {
        assert_eq!(clock(-3), Ok("3 ms behind this machine's".to_owned()));
        assert_eq!(clock(10_000), Ok("10000 ms ahead of this machine's".to_owned()));
        assert!(clock(-10_001).unwrap_err().contains("NTP"));
        assert!(clock(i64::MIN).is_err());
    }
}
