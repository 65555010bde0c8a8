use millstream_meta::{MetaError, PipelineRow};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Fixture, NOW_MS, TASKS};

on_both! {
    an_activation_makes_the_next_version_and_keeps_the_ones_before,
    an_activation_based_on_another_version_is_a_conflict,
    of_racing_activations_based_on_one_version_exactly_one_wins,
}

async fn an_activation_makes_the_next_version_and_keeps_the_ones_before(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    assert_eq!(fixture.metadata.pipeline(topic.id).await.unwrap(), None);
    let first = fixture
        .metadata
        .activate_pipeline(topic.id, 0, "[1]", "a test", 10)
        .await
        .unwrap();
    assert_eq!(
        first,
        PipelineRow {
            version: 1,
            stages_json: "[1]".into(),
            activated_at_ms: 10,
            reason: "a test".into(),
            activation: 1,
        }
    );
    let second = fixture
        .metadata
        .activate_pipeline(topic.id, 1, "[]", "a test", 20)
        .await
        .unwrap();
    assert_eq!(fixture.metadata.pipeline(topic.id).await.unwrap(), Some(second));
    assert_eq!(fixture.metadata.pipeline_at(topic.id, 1).await.unwrap(), Some(first));
    assert_eq!(fixture.metadata.pipeline_at(topic.id, 3).await.unwrap(), None);
}

async fn an_activation_based_on_another_version_is_a_conflict(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    fixture
        .metadata
        .activate_pipeline(topic.id, 0, "[1]", "a test", NOW_MS)
        .await
        .unwrap();
    for expected in [0, 2] {
        let error = fixture
            .metadata
            .activate_pipeline(topic.id, expected, "[2]", "a test", NOW_MS)
            .await
            .unwrap_err();
        assert!(
            matches!(error, MetaError::Conflict { found: 1, expected: told, .. } if told == expected),
            "{error}"
        );
    }
    let error = fixture
        .metadata
        .activate_pipeline(Uuid::from_u128(9), 0, "[]", "a test", NOW_MS)
        .await
        .unwrap_err();
    assert!(matches!(error, MetaError::NotFound { what: "topic", .. }), "{error}");
    assert_eq!(
        fixture.metadata.pipeline(topic.id).await.unwrap().unwrap().stages_json,
        "[1]"
    );
}

async fn of_racing_activations_based_on_one_version_exactly_one_wins(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 1).await;
    let mut tasks = JoinSet::new();
    for n in 0..TASKS {
        let metadata = fixture.metadata.clone();
        tasks.spawn(async move {
            metadata
                .activate_pipeline(topic.id, 0, &format!("[{n}]"), "a test", NOW_MS)
                .await
        });
    }
    let answers = tasks.join_all().await;
    let winners: Vec<_> = answers.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1);
    assert_eq!(
        fixture.metadata.pipeline(topic.id).await.unwrap().as_ref(),
        Some(&winners[0])
    );
}
