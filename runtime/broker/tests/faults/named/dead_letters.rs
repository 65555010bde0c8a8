//! A dead letter is durable before the batch that it came in is handed to the log.

use std::sync::Arc;

use millstream_broker::{Acks, Broker, OnError, Side};

use super::{KINDS, config, world};
use crate::control::{Fault, Point};
use crate::modules::{batch_of, bind, deploy, produce, traps_on_x, values};
use crate::world::{Agent, TOPIC};

const LETTERS: &str = "t.dead-letter";

/// An agent whose topic sends what holds an X to another one, and the ids of both.
fn opened(world: &crate::world::World, kind: millstream_broker::WalKind) -> (Agent, String, String) {
    let agent = world.open_with_topic(kind, config());
    let broker = agent.broker().clone();
    let ids = agent.run(async {
        deploy(&broker, "traps", traps_on_x()).await;
        bind(&broker, TOPIC, Side::Produce, "traps", OnError::DeadLetter)
            .await
            .unwrap();
        let id = async |name: &str| broker.topic(name, false).await.unwrap().0.id.to_string();
        (id(TOPIC).await, id(LETTERS).await)
    });
    (agent, ids.0, ids.1)
}

fn producing(
    agent: &Agent,
) -> tokio::task::JoinHandle<Result<millstream_broker::Receipt, millstream_broker::BrokerError>> {
    let broker: Arc<Broker> = agent.broker().clone();
    agent.spawn(async move { broker.produce(TOPIC, 0, batch_of(&["a", "X"]), Acks::Durable).await })
}

fn submitted(agent: &Agent, id: &str) -> usize {
    let names = agent.control.seen(Point::Submit).into_iter();
    names.filter(|name| name.contains(id)).count()
}

#[test]
fn no_frame_is_handed_to_the_log_before_its_dead_letters_are_durable() {
    for kind in KINDS {
        let world = world();
        let (agent, source, letters) = opened(&world, kind);
        agent.control.ask(Point::Commit, &letters, Fault::HoldAnswer, 1);
        producing(&agent);
        agent.run(agent.control.wait_met(1));
        assert_eq!((submitted(&agent, &letters), submitted(&agent, &source)), (1, 0));
        agent.crash();

        // The producer was not answered, and sends it again: the letter may stand there twice, and never not at all.
        let agent = world.open(kind);
        let broker = agent.broker();
        assert_eq!(agent.run(values(broker, TOPIC)), [""; 0]);
        agent.run(produce(broker, TOPIC, &["a", "X"])).unwrap();
        assert_eq!(agent.run(values(broker, TOPIC)), ["a"]);
        let found = agent.run(values(broker, LETTERS));
        assert!(
            (1..=2).contains(&found.len()) && found.iter().all(|value| value == "X"),
            "{found:?}"
        );
        agent.stop();
    }
}

#[test]
fn a_crash_behind_them_leaves_the_letters() {
    for kind in KINDS {
        let world = world();
        let (agent, source, _) = opened(&world, kind);
        agent.control.ask(Point::Submit, &source, Fault::Hold, 1);
        producing(&agent);
        agent.run(agent.control.wait_met(1));
        agent.crash();
        let agent = world.open(kind);
        assert_eq!(agent.run(values(agent.broker(), LETTERS)), ["X"]);
        assert_eq!(agent.run(values(agent.broker(), TOPIC)), [""; 0]);
        agent.stop();
    }
}

#[test]
fn a_letter_that_cannot_be_written_refuses_the_whole_request() {
    for kind in KINDS {
        let world = world();
        let (agent, source, letters) = opened(&world, kind);
        agent.control.ask(Point::Submit, &letters, Fault::Fail, 1);
        let refused = agent.run(producing(&agent)).unwrap().unwrap_err();
        assert!(refused.to_string().contains(LETTERS), "{refused}");
        assert_eq!(submitted(&agent, &source), 0);
        agent.run(produce(agent.broker(), TOPIC, &["a", "X"])).unwrap();
        assert_eq!(agent.run(values(agent.broker(), TOPIC)), ["a"]);
        assert_eq!(agent.run(values(agent.broker(), LETTERS)), ["X"]);
        agent.stop();
    }
}
