//! `ClusterService`.

use bytes::Bytes;
use millstream_broker::AgentShare;
use millstream_proto::v1;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Api, status::status};

#[tonic::async_trait]
impl v1::cluster_service_server::ClusterService for Api {
    async fn list_agents(&self, _: Request<v1::ListAgentsRequest>) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let (agents, own) = (self.broker.agents().await.map_err(status)?, self.broker.incarnation());
        let agents = agents.into_iter().map(|share| agent_message(share, own)).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }
}

fn agent_message(share: AgentShare, own: Uuid) -> v1::Agent {
    let AgentShare { agent, partitions } = share;
    let this_one = agent.incarnation == own;
    v1::Agent {
        name: agent.name,
        address: agent.address,
        incarnation: Bytes::copy_from_slice(agent.incarnation.as_bytes()),
        alive: agent.live,
        partition_count: u32::try_from(partitions).unwrap_or(u32::MAX),
        this_one,
        version: if this_one {
            env!("CARGO_PKG_VERSION").to_owned()
        } else {
            String::new()
        },
        started_at_ms: agent.registered_at_ms,
    }
}
