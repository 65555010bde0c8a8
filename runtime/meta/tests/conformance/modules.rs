use millstream_meta::MetaError;
use tokio::task::JoinSet;

use crate::{Fixture, NOW_MS, TASKS};

on_both! {
    the_same_content_is_the_same_version_and_new_content_the_next,
    racing_deployments_count_versions_without_gaps,
    content_that_cannot_be_is_refused,
}

fn sha(digit: char) -> String {
    digit.to_string().repeat(64)
}

async fn the_same_content_is_the_same_version_and_new_content_the_next(fixture: Fixture) {
    let metadata = &fixture.metadata;
    let (first, created) = metadata.deploy_module("redact", &sha('a'), 10, "{}", 1).await.unwrap();
    assert_eq!((first.version, first.deployed_at_ms, created), (1, 1, true));
    let (second, created) = metadata.deploy_module("redact", &sha('b'), 20, "{}", 2).await.unwrap();
    assert_eq!((second.version, created), (2, true));
    let (again, created) = metadata.deploy_module("redact", &sha('a'), 10, "{}", 3).await.unwrap();
    assert_eq!((&again, created), (&first, false));
    let (other, _) = metadata.deploy_module("filter", &sha('a'), 10, "{}", 4).await.unwrap();
    assert_eq!(other.version, 1);

    assert_eq!(metadata.module("redact", None).await.unwrap(), Some(second.clone()));
    assert_eq!(metadata.module("redact", Some(1)).await.unwrap(), Some(first.clone()));
    assert_eq!(metadata.module("redact", Some(3)).await.unwrap(), None);
    assert_eq!(metadata.module("unknown", None).await.unwrap(), None);
    assert_eq!(metadata.modules().await.unwrap(), [other, first, second]);
}

async fn racing_deployments_count_versions_without_gaps(fixture: Fixture) {
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let metadata = fixture.metadata.clone();
        // Every content comes twice.
        let content = sha(char::from_digit((n / 2) as u32, 16).unwrap());
        tasks.spawn(async move {
            metadata
                .deploy_module("redact", &content, 10, "{}", NOW_MS)
                .await
                .unwrap()
        });
    }
    let answers = tasks.join_all().await;
    assert_eq!(answers.iter().filter(|(_, created)| *created).count(), 8);
    let versions: Vec<_> = fixture
        .metadata
        .modules()
        .await
        .unwrap()
        .iter()
        .map(|module| module.version)
        .collect();
    assert_eq!(versions, (1..=8).collect::<Vec<_>>());
}

async fn content_that_cannot_be_is_refused(fixture: Fixture) {
    for (name, sha256, size, info) in [
        ("", sha('a'), 1, "{}"),
        ("m", sha('A'), 1, "{}"),
        ("m", "a".into(), 1, "{}"),
        ("m", sha('a'), 0, "{}"),
    ] {
        let error = fixture
            .metadata
            .deploy_module(name, &sha256, size, info, NOW_MS)
            .await
            .unwrap_err();
        assert!(matches!(error, MetaError::Invalid { .. }), "{error}");
    }
    assert!(fixture.metadata.modules().await.unwrap().is_empty());
}
