//! The calls over which a producer sends: one to the agent that it was made for, and one to each other agent that leads some
//! of its partitions.

use std::{
    collections::{HashMap, VecDeque},
    mem,
};

use futures::future::{BoxFuture, FutureExt as _, select_all};

use super::{
    link::{Link, News},
    wire::Request,
};
use crate::{ClientError, Connection};

/// The agents that lead partitions, where the producer's own does not.
#[derive(Debug, Default)]
pub(super) struct Routes(HashMap<u32, Connection>);

impl Routes {
    /// Whom a partition's batches go to, where that is not the producer's own agent.
    pub(super) fn of(&self, partition: u32) -> Option<&Connection> {
        self.0.get(&partition)
    }

    /// Learns from why a batch came back; true where it goes to another agent next.
    pub(super) fn learn(&mut self, own: &Connection, partition: u32, error: &ClientError) -> bool {
        match error.leader().map(|leader| own.at(leader)) {
            Some(Ok(leader)) => {
                let before = self.0.insert(partition, leader);
                before.map(|before| before.url().to_owned()).as_deref() != self.of(partition).map(Connection::url)
            }
            // The own agent knows who leads it now.
            None if error.is_away() => self.0.remove(&partition).is_some(),
            _ => false,
        }
    }
}

/// Calls that go on side by side. All of a partition's batches go over one of them.
pub(super) struct Fan {
    /// `None` once it has ended.
    own: Option<Link>,
    others: Vec<Way>,
    /// Requests that were not answered before the call ended that they were sent over.
    lost: VecDeque<(u32, ClientError)>,
    /// Nothing more is sent: some partition's batches were broken off.
    pub(super) is_draining: bool,
}

/// A call to another agent.
struct Way {
    url: String,
    call: Call,
}

enum Call {
    /// What is to be sent waits here, bounded by the producer's buffer.
    Opening(BoxFuture<'static, Result<Link, ClientError>>, VecDeque<Request>),
    Open(Box<Link>),
}

impl Fan {
    pub(super) async fn open(own: Connection) -> Result<Fan, ClientError> {
        Ok(Fan {
            own: Some(Link::open(own).await?),
            others: Vec::new(),
            lost: VecDeque::new(),
            is_draining: false,
        })
    }

    /// Sends a request to `agent`, or to the producer's own where there is none.
    pub(super) fn send(&mut self, request: Request, agent: Option<&Connection>) {
        let Some(agent) = agent else {
            let own = self.own.as_mut().expect("nothing is sent once a call has ended");
            return own.send(request);
        };
        let at = self.others.iter().position(|way| way.url == agent.url());
        let at = at.unwrap_or_else(|| {
            self.others.push(Way {
                url: agent.url().to_owned(),
                call: Call::Opening(Link::open(agent.clone()).boxed(), VecDeque::new()),
            });
            self.others.len() - 1
        });
        match &mut self.others[at].call {
            Call::Opening(_, waiting) => waiting.push_back(request),
            Call::Open(link) => link.send(request),
        }
    }

    /// Whether everything sent is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.own.as_ref().is_none_or(Link::is_idle) && self.lost.is_empty() && self.others.iter().all(Way::is_idle)
    }

    /// Waits for what one of the calls says next.
    pub(super) async fn news(&mut self) -> News {
        if let Some((partition, error)) = self.lost.pop_front() {
            return News::Lost(partition, error);
        }
        let (news, at) = {
            let own = async {
                match &mut self.own {
                    Some(own) => own.news().await,
                    None => std::future::pending().await,
                }
            };
            let others = self.others.iter_mut().map(|way| way.news().boxed());
            let (news, at, _) = select_all(std::iter::once(own.boxed()).chain(others)).await;
            (news, at)
        };
        if let News::Ended(error) = &news {
            // The others go on until everything that was sent over them is answered.
            self.is_draining = true;
            let unanswered = match at.checked_sub(1) {
                None => self.own.take().map(Link::unanswered).unwrap_or_default(),
                Some(other) => self.others.swap_remove(other).unanswered(),
            };
            let lost = unanswered.into_iter().map(|partition| (partition, error.clone()));
            self.lost.extend(lost);
        }
        news
    }
}

impl Way {
    fn is_idle(&self) -> bool {
        match &self.call {
            Call::Opening(_, waiting) => waiting.is_empty(),
            Call::Open(link) => link.is_idle(),
        }
    }

    async fn news(&mut self) -> News {
        loop {
            match &mut self.call {
                Call::Open(link) => return link.news().await,
                Call::Opening(opening, waiting) => match opening.await {
                    Ok(mut link) => {
                        mem::take(waiting).into_iter().for_each(|request| link.send(request));
                        self.call = Call::Open(Box::new(link));
                    }
                    Err(error) => return News::Ended(error),
                },
            }
        }
    }

    /// The partitions of what was not answered, one for each request.
    fn unanswered(self) -> Vec<u32> {
        match self.call {
            Call::Opening(_, waiting) => waiting.iter().map(|request| request.partition).collect(),
            Call::Open(link) => link.unanswered(),
        }
    }
}
