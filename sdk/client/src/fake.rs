//! An agent that reads and groups as a test says.

use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, stream};
use millstream_proto::v1::{
    self,
    consumer_service_server::{ConsumerService, ConsumerServiceServer},
    group_service_server::{GroupService, GroupServiceServer},
    subscribe_request::Message,
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status, Streaming,
    codegen::BoxStream,
    transport::{Server, server::TcpIncoming},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{Code, Connection};

/// One past the last offset of each partition.
pub const END: u64 = 100;

/// What is answered; never where it is `None`.
type Answer<Q, A> = Box<dyn Fn(&Q) -> Option<Result<A, Status>> + Send + Sync>;

/// What a partition that is read from there answers.
type Read = Box<dyn Fn(&v1::PartitionPosition) -> Vec<v1::FetchedPartition> + Send + Sync>;

/// What an agent answers; each request is noted before.
pub struct Fake {
    /// What comes of a partition from this position on, all at once.
    pub read: Read,
    pub beat: Answer<v1::HeartbeatRequest, v1::HeartbeatResponse>,
    pub commit: Answer<v1::CommitOffsetsRequest, v1::CommitOffsetsResponse>,
    pub log: Mutex<Log>,
}

/// What an agent was asked.
#[derive(Default)]
pub struct Log {
    pub starts: Vec<v1::SubscribeStart>,
    pub commits: Vec<v1::CommitOffsetsRequest>,
}

impl Default for Fake {
    /// Reads nothing, gives its one member nothing, and stores everything.
    fn default() -> Fake {
        Fake {
            read: Box::new(|_| Vec::new()),
            beat: Box::new(|_| Some(Ok(member("m", 1)))),
            commit: Box::new(|_| Some(Ok(v1::CommitOffsetsResponse::default()))),
            log: Mutex::default(),
        }
    }
}

/// The fake as the services hold it.
#[derive(Clone)]
struct Agent(Arc<Fake>);

impl Fake {
    /// Where it serves from now on.
    pub async fn serve(self) -> (Arc<Fake>, Connection) {
        let fake = Arc::new(self);
        let agent = Agent(fake.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder()
            .add_service(ConsumerServiceServer::new(agent.clone()))
            .add_service(GroupServiceServer::new(agent));
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        (fake, Connection::open(&url).await.unwrap())
    }

    /// The offsets that it was to store, by partition, request by request.
    pub fn commits(&self) -> Vec<Vec<(u32, u64)>> {
        let log = self.log.lock().unwrap();
        let of = |request: &v1::CommitOffsetsRequest| {
            let offsets = request.offsets.iter();
            offsets.map(|offset| (offset.partition, offset.offset)).collect()
        };
        log.commits.iter().map(of).collect()
    }
}

/// An answer to a heartbeat; the next one is not soon.
pub fn member(id: &str, generation: u64) -> v1::HeartbeatResponse {
    v1::HeartbeatResponse {
        member_id: id.to_owned(),
        generation,
        heartbeat_interval_ms: 600_000,
        ..v1::HeartbeatResponse::default()
    }
}

/// A refusal by its reason.
pub fn refusal(code: Code, reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, "millstream.v1", [] as [(String, String); 0]);
    Status::with_error_details(code, reason, details)
}

async fn answer<A>(answer: Option<Result<A, Status>>) -> Result<Response<A>, Status> {
    match answer {
        Some(answer) => answer.map(Response::new),
        None => std::future::pending().await,
    }
}

fn absent<T>() -> Result<T, Status> {
    Err(Status::unimplemented("no test needs it"))
}

#[tonic::async_trait]
impl ConsumerService for Agent {
    type SubscribeStream = BoxStream<v1::SubscribeResponse>;

    async fn subscribe(
        &self,
        requests: Request<Streaming<v1::SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let fake = self.0.clone();
        let answers = requests.into_inner().flat_map(move |request| {
            let partitions = match request.ok().and_then(|request| request.message) {
                Some(Message::Start(start)) => {
                    let partitions = start.partitions.clone();
                    fake.log.lock().unwrap().starts.push(start);
                    partitions
                }
                Some(Message::Assign(assign)) => assign.partitions,
                _ => Vec::new(),
            };
            let read: Vec<_> = partitions.iter().flat_map(|at| (fake.read)(at)).collect();
            stream::iter(read).map(|fetched| {
                Ok(v1::SubscribeResponse {
                    fetched: Some(fetched),
                    ..v1::SubscribeResponse::default()
                })
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn fetch(&self, _: Request<v1::FetchRequest>) -> Result<Response<v1::FetchResponse>, Status> {
        absent()
    }

    async fn list_offsets(
        &self,
        _: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        Ok(Response::new(v1::ListOffsetsResponse {
            high_watermark: END,
            ..v1::ListOffsetsResponse::default()
        }))
    }
}

#[tonic::async_trait]
impl GroupService for Agent {
    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        answer((self.0.beat)(request.get_ref())).await
    }

    async fn leave_group(&self, _: Request<v1::LeaveGroupRequest>) -> Result<Response<v1::LeaveGroupResponse>, Status> {
        Ok(Response::new(v1::LeaveGroupResponse {}))
    }

    async fn commit_offsets(
        &self,
        request: Request<v1::CommitOffsetsRequest>,
    ) -> Result<Response<v1::CommitOffsetsResponse>, Status> {
        let request = request.into_inner();
        self.0.log.lock().unwrap().commits.push(request.clone());
        answer((self.0.commit)(&request)).await
    }

    async fn fetch_offsets(
        &self,
        _: Request<v1::FetchOffsetsRequest>,
    ) -> Result<Response<v1::FetchOffsetsResponse>, Status> {
        Ok(Response::new(v1::FetchOffsetsResponse::default()))
    }

    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Result<Response<v1::ListGroupsResponse>, Status> {
        absent()
    }

    async fn get_group(&self, _: Request<v1::GetGroupRequest>) -> Result<Response<v1::GetGroupResponse>, Status> {
        absent()
    }

    async fn reset_group(&self, _: Request<v1::ResetGroupRequest>) -> Result<Response<v1::ResetGroupResponse>, Status> {
        absent()
    }

    async fn delete_group(
        &self,
        _: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        absent()
    }
}
