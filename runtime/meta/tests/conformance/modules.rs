use millstream_meta::{MetaError, Metadata, NewCurrent, NewPipeline, PipelineChanges};
use tokio::task::JoinSet;

use crate::{Fixture, NOW_MS, TASKS};

on_both! {
    the_same_content_is_the_same_version_and_new_content_the_next,
    racing_deployments_count_versions_without_gaps,
    content_that_cannot_be_is_refused,
    the_current_version_moves_with_the_pipelines_that_follow_it_or_not_at_all,
    whoever_begins_to_follow_is_not_left_behind,
    of_racing_moves_from_one_version_exactly_one_wins,
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

    assert_eq!(
        metadata.module("redact", None).await.unwrap(),
        None,
        "none is current yet"
    );
    assert_eq!(metadata.module("redact", Some(2)).await.unwrap(), Some(second.clone()));
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

async fn versions(metadata: &Metadata, count: u8) {
    for n in 0..count {
        let content = sha(char::from(b'a' + n));
        metadata.deploy_module("m", &content, 10, "{}", NOW_MS).await.unwrap();
    }
}

/// A move of the module, as it stands, with these pipelines.
async fn moving(metadata: &Metadata, from: u32, to: u32, pipelines: Vec<NewPipeline>) -> PipelineChanges {
    let state = metadata.module_state("m").await.unwrap().unwrap();
    let current = NewCurrent {
        module: "m".into(),
        from,
        to,
        followed: state.followed,
        replaces: true,
    };
    PipelineChanges {
        pipelines,
        current: Some(current),
        reason: "a test".into(),
        ..PipelineChanges::default()
    }
}

fn pipeline(topic_id: uuid::Uuid, expected_version: u64) -> NewPipeline {
    NewPipeline {
        topic_id,
        expected_version,
        stages_json: format!("[{expected_version}]"),
    }
}

async fn the_current_version_moves_with_the_pipelines_that_follow_it_or_not_at_all(fixture: Fixture) {
    let metadata = &fixture.metadata;
    versions(metadata, 3).await;
    let (t, u) = (fixture.topic(1, "t", 1).await.id, fixture.topic(2, "u", 1).await.id);
    let first = moving(metadata, 0, 1, vec![pipeline(t, 0), pipeline(u, 0)]).await;
    let rows = metadata.change_pipelines(&first, NOW_MS).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.version).collect::<Vec<_>>(), [1, 1]);
    assert_eq!(metadata.cached().pipeline(u).await.unwrap().as_deref(), Some(&rows[1]));

    let refused = [
        moving(metadata, 2, 3, Vec::new()).await,
        moving(metadata, 1, 9, Vec::new()).await,
        moving(metadata, 1, 2, vec![pipeline(t, 1), pipeline(u, 5)]).await,
        moving(
            metadata,
            1,
            2,
            vec![pipeline(t, 1), pipeline(uuid::Uuid::from_u128(9), 0)],
        )
        .await,
    ];
    for changes in &refused {
        let error = metadata.change_pipelines(changes, NOW_MS).await.unwrap_err();
        assert!(
            matches!(error, MetaError::Conflict { .. } | MetaError::NotFound { .. }),
            "{error}"
        );
    }
    assert_eq!(metadata.module("m", None).await.unwrap().unwrap().version, 1);
    assert_eq!(metadata.pipeline(t).await.unwrap().unwrap().version, 1);
    assert_eq!(metadata.pipelines_in_force().await.unwrap().len(), 2);

    let second = moving(metadata, 1, 2, vec![pipeline(t, 1), pipeline(u, 1)]).await;
    metadata.change_pipelines(&second, NOW_MS + 1).await.unwrap();
    let current = metadata.module("m", None).await.unwrap().unwrap();
    assert_eq!((current.version, current.replaces, current.current), (2, Some(1), true));
    let were_current = async || {
        let versions = metadata.modules().await.unwrap();
        versions.iter().map(|version| version.was_current).collect::<Vec<_>>()
    };
    assert_eq!(were_current().await, [true, true, false]);
    for (from, to) in [(2, 1), (1, 3), (3, 1)] {
        let mut back = moving(metadata, from, to, Vec::new()).await;
        back.current.as_mut().unwrap().replaces = false;
        metadata.change_pipelines(&back, NOW_MS).await.unwrap();
        assert_eq!(metadata.module("m", None).await.unwrap().unwrap().replaces, None);
    }
    assert_eq!(were_current().await, [true, true, true], "going back makes current too");
    assert_eq!(metadata.module("m", Some(2)).await.unwrap().unwrap().replaces, Some(1));
    let history = metadata.pipeline_history(t, u64::MAX, 10).await.unwrap();
    let seen: Vec<_> = history
        .iter()
        .map(|row| (row.version, row.activated_at_ms, &*row.reason))
        .collect();
    assert_eq!(seen, [(2, NOW_MS + 1, "a test"), (1, NOW_MS, "a test")]);
    assert_eq!(metadata.pipeline_history(t, 2, 1).await.unwrap(), history[1..]);
}

async fn whoever_begins_to_follow_is_not_left_behind(fixture: Fixture) {
    let metadata = &fixture.metadata;
    versions(metadata, 2).await;
    let t = fixture.topic(1, "t", 1).await.id;
    metadata
        .change_pipelines(&moving(metadata, 0, 1, Vec::new()).await, NOW_MS)
        .await
        .unwrap();
    // It was read who follows, then somebody did.
    let late = moving(metadata, 1, 2, Vec::new()).await;
    let follows = |version| PipelineChanges {
        pipelines: vec![pipeline(t, 0)],
        follows: vec![("m".into(), version)],
        ..PipelineChanges::default()
    };
    let error = metadata.change_pipelines(&follows(2), NOW_MS).await.unwrap_err();
    assert!(
        matches!(
            error,
            MetaError::Conflict {
                expected: 2,
                found: 1,
                ..
            }
        ),
        "{error}"
    );
    metadata.change_pipelines(&follows(1), NOW_MS).await.unwrap();
    let error = metadata.change_pipelines(&late, NOW_MS).await.unwrap_err();
    assert!(matches!(error, MetaError::Conflict { .. }), "{error}");
    assert_eq!(metadata.module("m", None).await.unwrap().unwrap().version, 1);
}

async fn of_racing_moves_from_one_version_exactly_one_wins(fixture: Fixture) {
    versions(&fixture.metadata, 3).await;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let metadata = fixture.metadata.clone();
        let changes = moving(&metadata, 0, (n % 3) as u32 + 1, Vec::new()).await;
        tasks.spawn(async move { metadata.change_pipelines(&changes, NOW_MS).await.is_ok() });
    }
    let won = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
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
