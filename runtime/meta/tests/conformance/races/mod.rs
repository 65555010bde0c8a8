//! Sixteen clients at once do all that agents do to partitions. Every answer is recorded, and the history that the
//! answers tell is held against itself and against what the database has in the end.

mod client;
mod history;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use millstream_meta::{Lease, MetaError, WalKind};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Fixture, TASKS};
use client::Client;
use history::History;

on_both! {
    racing_clients_leave_one_history_without_gaps_and_overlaps,
    of_agents_racing_for_a_free_partition_one_holds_it_and_the_others_are_told_who,
}

/// The variable that names a seed.
const SEED_VARIABLE: &str = "MILLSTREAM_TEST_SEED";
/// What each client does, one thing after the other.
const STEPS: u32 = 120;
/// Partitions of the topic that stays.
const PARTITIONS: u32 = 3;
/// Races for a free partition.
const ROUNDS: u32 = 10;

/// The last leases that anybody acquired: whoever likes uses them, as an agent does that does not know yet that it was
/// fenced.
type Board = Arc<Mutex<HashMap<(Uuid, u32), Lease>>>;

fn seed() -> u64 {
    let seed = match std::env::var(SEED_VARIABLE) {
        Ok(seed) => seed.parse().expect("MILLSTREAM_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("{SEED_VARIABLE}={seed}");
    seed
}

async fn racing_clients_leave_one_history_without_gaps_and_overlaps(fixture: Fixture) {
    let mut random = fastrand::Rng::with_seed(seed());
    fixture.topic(1, client::KEPT, PARTITIONS).await;
    fixture.topic(2, client::DOOMED, 1).await;
    let board = Board::default();
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let client = Client::new(fixture.client().await, number, random.fork(), board.clone()).await;
        tasks.spawn(client.run(STEPS));
    }
    let events = tasks.join_all().await.into_iter().flatten().collect();
    let history = History::of(events);
    println!("{}", history.summary());
    history.check(&fixture).await;
}

async fn of_agents_racing_for_a_free_partition_one_holds_it_and_the_others_are_told_who(fixture: Fixture) {
    let topic = fixture.topic(1, "orders", ROUNDS).await;
    let mut clients = Vec::new();
    for number in 0..TASKS {
        let agent = format!("agent-{number}");
        let incarnation = fixture
            .incarnation_of(&agent, u128::from(200 + number), WalKind::Object)
            .await;
        clients.push((agent, incarnation, fixture.client().await));
    }
    for partition in 0..ROUNDS {
        let start = Arc::new(Barrier::new(clients.len()));
        let mut tasks = JoinSet::new();
        for (agent, incarnation, metadata) in clients.clone() {
            let start = start.clone();
            tasks.spawn(async move {
                start.wait().await;
                (agent, metadata.acquire_lease(topic.id, partition, incarnation).await)
            });
        }
        let answers = tasks.join_all().await;
        let winners: Vec<_> = answers.iter().filter(|(_, answer)| answer.is_ok()).collect();
        let [(winner, lease)] = winners.as_slice() else {
            panic!("{answers:?}")
        };
        assert_eq!(lease.as_ref().unwrap().epoch.0, 1, "the others took no epoch");
        for (_, answer) in answers.iter().filter(|(agent, _)| agent != winner) {
            let told = matches!(answer, Err(MetaError::LeaseHeld { agent, .. }) if agent == winner);
            assert!(told, "{winner} holds it, not {answer:?}");
        }
    }
}
