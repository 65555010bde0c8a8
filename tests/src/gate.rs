//! An outage at will: a gate that stands before a TCP server.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on to a server while it is open. Closing it cuts those that are there and refuses new ones.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    _passing: JoinSet<()>,
}

impl Gate {
    /// An open gate before the server at `target`, HOST:PORT.
    pub async fn before(target: &str) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let open = Arc::new(watch::Sender::new(true));
        let mut passing = JoinSet::new();
        passing.spawn(accept(listener, target.to_owned(), open.clone()));
        Gate {
            address,
            open,
            _passing: passing,
        }
    }

    /// Where clients connect to, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Begins an outage.
    pub fn close(&self) {
        self.open.send_replace(false);
    }

    /// Ends it.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

async fn accept(listener: TcpListener, target: String, open: Arc<watch::Sender<bool>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        // A connection that is let go of here is closed at once.
        if *open.borrow() {
            connections.spawn(pass(client, target.clone(), open.subscribe()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(mut client: TcpStream, target: String, mut open: watch::Receiver<bool>) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        // However it ends, both sides see their connection closed.
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
