//! Bad days of a network at will: a gate that stands before a TCP server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// How much a connection passes on at once.
const PIECE_BYTES: usize = 64 << 10;

/// What becomes of connections and of what goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passage {
    /// All passes, each piece for the server after this delay.
    Open(Duration),
    /// Connections stay and are taken, and nothing passes towards the server.
    Stalled,
    /// The same for connections taken before the one of this number; what comes later passes.
    OnlyFrom(u64),
    /// Connections break, and new ones are refused.
    Closed,
}

impl Passage {
    /// How long a piece of this connection waits; none where it does not.
    fn delay(self, number: u64) -> Option<Duration> {
        match self {
            Passage::Open(Duration::ZERO) => None,
            Passage::Open(delay) => Some(delay),
            Passage::OnlyFrom(first) if number >= first => None,
            Passage::OnlyFrom(_) | Passage::Stalled | Passage::Closed => Some(Duration::MAX),
        }
    }
}

/// Passes connections on to a server, as well as it is told to.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    passage: Arc<watch::Sender<Passage>>,
    /// Connections that were taken.
    taken: Arc<AtomicU64>,
    _passing: JoinSet<()>,
}

impl Gate {
    /// An open gate before the server at `target`, HOST:PORT.
    pub async fn before(target: &str) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let passage = Arc::new(watch::Sender::new(Passage::Open(Duration::ZERO)));
        let mut passing = JoinSet::new();
        let taken = Arc::<AtomicU64>::default();
        passing.spawn(accept(listener, target.to_owned(), passage.clone(), taken.clone()));
        Gate {
            address,
            passage,
            taken,
            _passing: passing,
        }
    }

    /// Where clients connect to, HOST:PORT.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect to, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins an outage.
    pub fn close(&self) {
        self.passage.send_replace(Passage::Closed);
    }

    /// From now on nothing passes, and nobody is told.
    pub fn stall(&self) {
        self.passage.send_replace(Passage::Stalled);
    }

    /// From now on nothing passes through the connections there are, and nobody is told; new ones are good.
    pub fn lose_connections(&self) {
        let taken = self.taken.load(Ordering::Acquire);
        self.passage.send_replace(Passage::OnlyFrom(taken));
    }

    /// From now on each piece takes so much longer on its way to the server.
    pub fn slow(&self, delay: Duration) {
        self.passage.send_replace(Passage::Open(delay));
    }

    /// Ends all that.
    pub fn open(&self) {
        self.passage.send_replace(Passage::Open(Duration::ZERO));
    }
}

async fn accept(listener: TcpListener, target: String, passage: Arc<watch::Sender<Passage>>, taken: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let number = taken.fetch_add(1, Ordering::AcqRel);
        // A connection that is let go of here is closed at once.
        if *passage.borrow() != Passage::Closed {
            connections.spawn(pass(number, client, target.clone(), passage.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(number: u64, client: TcpStream, target: String, mut passage: watch::Receiver<Passage>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let there = to_the_server(number, from_client, to_server, passage.clone());
    let back = to_the_client(from_server, to_client);
    tokio::select! {
        // However it ends, both sides see their connection closed.
        _ = async { tokio::try_join!(there, back) } => {}
        _ = passage.wait_for(|passage| *passage == Passage::Closed) => {}
    }
}

async fn to_the_server(
    number: u64,
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    mut passage: watch::Receiver<Passage>,
) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = client.read(&mut piece).await?;
        if length == 0 {
            return server.shutdown().await;
        }
        // Whoever is stalled or slowed down may be let go meanwhile.
        loop {
            let Some(wait) = passage.borrow_and_update().delay(number) else {
                break;
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => break,
                changed = passage.changed() => if changed.is_err() { return Ok(()) },
            }
        }
        server.write_all(&piece[..length]).await?;
    }
}

async fn to_the_client(mut server: OwnedReadHalf, mut client: OwnedWriteHalf) -> std::io::Result<()> {
    copy(&mut server, &mut client).await?;
    client.shutdown().await
}
