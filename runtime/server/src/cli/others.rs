//! Agents that have not switched to what was activated, as they are printed.

use std::collections::BTreeMap;

use millstream_client::v1;
use serde::Serialize;

/// What an answer says about the other agents that lead partitions of one topic.
#[derive(Debug, Default, Serialize)]
pub struct OthersView {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    not_switched: Vec<NotSwitchedView>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    others_unknown: bool,
}

#[derive(Debug, Serialize)]
struct NotSwitchedView {
    agent: String,
    address: String,
    lease_over: bool,
}

impl OthersView {
    pub fn new(not_switched: Vec<v1::NotSwitched>, others_unknown: bool) -> OthersView {
        let not_switched = not_switched.into_iter().map(|behind| NotSwitchedView {
            agent: behind.agent,
            address: behind.address,
            lease_over: behind.lease_over,
        });
        OthersView {
            not_switched: not_switched.collect(),
            others_unknown,
        }
    }
}

/// A line for each agent that has not switched, behind the text of an answer about these topics.
pub fn with_others<'a>(text: String, topics: impl Iterator<Item = (&'a str, &'a OthersView)>) -> String {
    let (mut behind, mut unknown) = (BTreeMap::<_, Vec<&str>>::new(), Vec::new());
    for (topic, others) in topics {
        if others.others_unknown {
            unknown.push(topic);
        }
        for agent in &others.not_switched {
            let agent = (&*agent.agent, &*agent.address, agent.lease_over);
            behind.entry(agent).or_default().push(topic);
        }
    }
    let mut text = text;
    for ((agent, address, lease_over), topics) in behind {
        let topics = named(&topics);
        text += &match lease_over {
            false => format!(
                "\nagent {agent} ({address}) has not switched yet: {topics}; it follows with its next request or once it is \
                 reachable"
            ),
            true => format!(
                "\nagent {agent} ({address}) is not heard of, its lease is over: {topics}; it switches before it appends again"
            ),
        };
    }
    if !unknown.is_empty() {
        let topics = named(&unknown);
        text += &format!("\nwhether other agents have switched is not known: {topics}; they follow by themselves");
    }
    text
}

fn named(topics: &[&str]) -> String {
    match topics {
        [topic] => format!("topic {topic}"),
        topics => format!("topics {}", topics.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind(agent: &str, lease_over: bool) -> v1::NotSwitched {
        v1::NotSwitched {
            agent: agent.to_owned(),
            address: format!("{agent}.example:7070"),
            lease_over,
        }
    }

    #[test]
    fn each_agent_is_named_once_with_its_topics() {
        let slow = OthersView::new(vec![behind("b", false)], false);
        let dead = OthersView::new(vec![behind("b", false), behind("c", true)], false);
        let unknown = OthersView::new(Vec::new(), true);
        let topics = [("orders", &slow), ("views", &dead), ("clicks", &unknown)];
        assert_eq!(
            with_others("switched".to_owned(), topics.into_iter()),
            "switched\n\
             agent b (b.example:7070) has not switched yet: topics orders, views; it follows with its next request or once it \
             is reachable\n\
             agent c (c.example:7070) is not heard of, its lease is over: topic views; it switches before it appends again\n\
             whether other agents have switched is not known: topic clicks; they follow by themselves"
        );
    }

    #[test]
    fn where_all_have_switched_nothing_is_said() {
        let all = OthersView::default();
        assert_eq!(
            with_others("switched".to_owned(), [("orders", &all)].into_iter()),
            "switched"
        );
        assert_eq!(serde_json::to_string(&all).unwrap(), "{}");
    }
}
