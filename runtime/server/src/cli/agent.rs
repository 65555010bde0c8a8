//! `millstream agent`.

use clap::Subcommand;
use indicatif::HumanCount;
use millstream_client::v1;
use serde::Serialize;
use uuid::Uuid;

use super::{
    Server,
    output::{Column, OutputFormat, print, table},
    topic::show_time,
};

/// Verbs of `agent`.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// List the agents of the installation, and what each leads
    List {
        #[command(flatten)]
        server: Server,
    },
}

/// An agent as `--output json` shows it.
#[derive(Debug, Serialize)]
struct AgentView {
    name: String,
    address: String,
    incarnation: String,
    alive: bool,
    partitions: u32,
    this_one: bool,
    version: Option<String>,
    started_at_ms: i64,
}

/// Runs a verb.
pub async fn run(command: AgentCommand, output: OutputFormat) -> anyhow::Result<()> {
    let AgentCommand::List { server } = command;
    let agents = server.admin().await?.agents().await?;
    let agents: Vec<_> = agents.into_iter().map(AgentView::from).collect();
    print(output, &agents, || agent_table(&agents))
}

impl From<v1::Agent> for AgentView {
    fn from(agent: v1::Agent) -> AgentView {
        AgentView {
            name: agent.name,
            address: agent.address,
            incarnation: Uuid::from_slice(&agent.incarnation).map_or_else(|_| String::new(), |id| id.to_string()),
            alive: agent.alive,
            partitions: agent.partition_count,
            this_one: agent.this_one,
            version: Some(agent.version).filter(|version| !version.is_empty()),
            started_at_ms: agent.started_at_ms,
        }
    }
}

fn agent_table(agents: &[AgentView]) -> String {
    let columns = [
        Column::Left("agent"),
        Column::Left("address"),
        Column::Left("leases"),
        Column::Right("partitions"),
        Column::Left("started"),
        Column::Left("version"),
    ];
    let rows = agents.iter().map(|agent| {
        let (alive, this_one) = (agent.alive, agent.this_one);
        vec![
            format!("{}{}", agent.name, if this_one { " (answers)" } else { "" }),
            agent.address.clone(),
            if alive { "live" } else { "over" }.to_owned(),
            HumanCount(agent.partitions.into()).to_string(),
            show_time(agent.started_at_ms),
            agent.version.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    table(&columns, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_in_json_has_plain_fields_and_its_version_where_it_tells_it() {
        let agent = v1::Agent {
            name: "a".to_owned(),
            address: "a.example:7070".to_owned(),
            incarnation: vec![1; 16].into(),
            alive: true,
            partition_count: 3,
            this_one: true,
            version: "0.1.0".to_owned(),
            started_at_ms: 5,
        };
        let other = v1::Agent {
            version: String::new(),
            this_one: false,
            ..agent.clone()
        };
        let json = serde_json::to_value([agent, other].map(AgentView::from)).unwrap();
        let mut expected = serde_json::json!({
            "name": "a", "address": "a.example:7070", "incarnation": "01010101-0101-0101-0101-010101010101",
            "alive": true, "partitions": 3, "this_one": true, "version": "0.1.0", "started_at_ms": 5,
        });
        assert_eq!(json[0], expected);
        (expected["this_one"], expected["version"]) = (false.into(), serde_json::Value::Null);
        assert_eq!(json[1], expected);
    }
}
