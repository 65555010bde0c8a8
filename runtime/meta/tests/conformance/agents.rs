use std::time::Duration;

use millstream_meta::{AgentRow, MetaError, NewIncarnation, WalKind};
use uuid::Uuid;

use crate::fixture::new_incarnation;
use crate::{Fixture, LEASE, NOW_MS};

on_both! {
    agents_are_listed_by_name_with_their_current_incarnation,
    each_agent_is_told_with_the_partitions_that_it_holds_now,
    an_incarnation_belongs_to_one_agent_and_registering_it_again_changes_nothing_but_its_time,
    an_incarnation_whose_wal_is_retired_is_not_registered_again,
    an_agent_that_cannot_be_is_refused,
    an_agent_that_comes_back_elsewhere_is_found_there,
    an_agent_that_was_never_registered_has_nothing_to_renew_or_to_leave,
}

async fn agents_are_listed_by_name_with_their_current_incarnation(fixture: Fixture) {
    // Some languages sort these otherwise than their bytes.
    let names = ["B", "_", "a", "ä"];
    for (n, name) in names.iter().enumerate().rev() {
        fixture.incarnation_of(name, 100 + n as u128, WalKind::Object).await;
    }
    fixture.incarnation_of("a", 200, WalKind::Object).await;
    fixture.expire("B").await;
    let row = |name: &str, id: u128, live| AgentRow {
        name: name.to_owned(),
        address: "host:7070".to_owned(),
        incarnation: Uuid::from_u128(id),
        registered_at_ms: NOW_MS,
        live,
    };
    let expected = [
        row("B", 100, false),
        row("_", 101, true),
        row("a", 200, true),
        row("ä", 103, true),
    ];
    assert_eq!(fixture.metadata.agents().await.unwrap(), expected);
}

async fn each_agent_is_told_with_the_partitions_that_it_holds_now(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", 3).await;
    let (a, b) = (
        fixture.incarnation_of("a", 100, WalKind::Object).await,
        fixture.incarnation_of("b", 101, WalKind::Object).await,
    );
    for (partition, incarnation) in [(0, a), (1, a), (2, b)] {
        let acquired = fixture.metadata.acquire_lease(topic.id, partition, incarnation).await;
        acquired.unwrap();
    }
    fixture.expire("b").await;
    let shares = async || {
        let shares = fixture.metadata.agent_shares().await.unwrap().into_iter();
        let shares = shares.map(|share| (share.agent.name, share.agent.live, share.partitions));
        shares.collect::<Vec<_>>()
    };
    let share = |name: &str, live, partitions| (name.to_owned(), live, partitions);
    assert_eq!(shares().await, [share("a", true, 2), share("b", false, 1)]);
    fixture.metadata.acquire_lease(topic.id, 2, a).await.unwrap();
    assert_eq!(shares().await, [share("a", true, 3), share("b", false, 0)]);
}

async fn an_incarnation_belongs_to_one_agent_and_registering_it_again_changes_nothing_but_its_time(fixture: Fixture) {
    let id = fixture.incarnation(100).await;
    fixture.expire("agent").await;
    let again = new_incarnation("agent", 100, WalKind::Disk);
    fixture.metadata.register_incarnation(&again, NOW_MS + 1).await.unwrap();
    let agents = fixture.metadata.agents().await.unwrap();
    assert_eq!((agents.len(), agents[0].incarnation, agents[0].live), (1, id, true));
    for (agent, kind) in [("other", WalKind::Disk), ("agent", WalKind::Object)] {
        let new = new_incarnation(agent, 100, kind);
        let error = fixture.metadata.register_incarnation(&new, NOW_MS).await.unwrap_err();
        let told = matches!(
            &error,
            MetaError::AlreadyExists {
                what: "incarnation",
                ..
            }
        );
        assert!(told, "{error}");
    }
    assert_eq!(fixture.metadata.agents().await.unwrap(), agents);
}

async fn an_incarnation_whose_wal_is_retired_is_not_registered_again(fixture: Fixture) {
    let id = fixture.incarnation(100).await;
    assert!(fixture.metadata.retire_wal(id).await.unwrap());
    let again = new_incarnation("agent", 100, WalKind::Disk);
    let error = fixture.metadata.register_incarnation(&again, NOW_MS).await.unwrap_err();
    assert!(matches!(error, MetaError::AlreadyExists { .. }), "{error}");
}

async fn an_agent_that_cannot_be_is_refused(fixture: Fixture) {
    let long = "x".repeat(250);
    for name in ["", long.as_str(), "nul\0"] {
        let new = new_incarnation(name, 100, WalKind::Disk);
        let error = fixture.metadata.register_incarnation(&new, NOW_MS).await.unwrap_err();
        assert!(matches!(error, MetaError::Invalid { .. }), "{name:?}: {error}");
    }
    assert!(fixture.metadata.agents().await.unwrap().is_empty());
}

async fn an_agent_that_comes_back_elsewhere_is_found_there(fixture: Fixture) {
    fixture.incarnation(100).await;
    let elsewhere = NewIncarnation {
        address: "[::1]:9",
        ..new_incarnation("agent", 101, WalKind::Disk)
    };
    fixture.metadata.register_incarnation(&elsewhere, NOW_MS).await.unwrap();
    let agents = fixture.metadata.agents().await.unwrap();
    assert_eq!((agents.len(), agents[0].address.as_str()), (1, "[::1]:9"));
}

async fn an_agent_that_was_never_registered_has_nothing_to_renew_or_to_leave(fixture: Fixture) {
    let unknown = Uuid::from_u128(9);
    let error = fixture.metadata.renew_leases(unknown, LEASE).await.unwrap_err();
    assert!(
        matches!(error, MetaError::Superseded { incarnation } if incarnation == unknown),
        "{error}"
    );
    fixture.metadata.leave(unknown).await.unwrap();
    let error = fixture.metadata.renew_leases(unknown, Duration::MAX).await.unwrap_err();
    assert!(
        matches!(error, MetaError::Superseded { .. } | MetaError::Invalid { .. }),
        "{error}"
    );
}
