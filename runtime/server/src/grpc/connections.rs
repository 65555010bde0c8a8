//! Connections as they are accepted: bounded in number, each with a budget, and ended when the agent has stopped or the
//! peer leaves it waiting.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::bounds::{Bounds, ConnectionBudget, OpenConnection};

/// How long to wait after the system could not give a connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a client of HTTP/2 sends before anything else.
const PREFACE_BYTES: usize = 24;

/// A peer that reads less than this in the time it has, reads nothing.
const PROGRESS_BYTES_LEAST: usize = 16 << 10;

/// How long a peer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until it has said that it speaks HTTP/2.
    pub to_speak: Duration,
    /// Until it has read more of an answer.
    pub to_read: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            to_speak: Duration::from_secs(10),
            to_read: Duration::from_secs(60),
        }
    }
}

/// Every connection that is accepted, no more at once than the bounds allow. They break when `cut` turns to true.
pub(super) fn incoming(
    listener: TcpListener,
    bounds: Arc<Bounds>,
    patience: Patience,
    cut: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, bounds, cut), move |(listener, bounds, cut)| async move {
        let permit = bounds.free_connections.clone().acquire_owned().await;
        let permit = permit.expect("it is never closed");
        let tcp = accept(&listener).await;
        let connection = Connection {
            tcp,
            peer: Peer::new(bounds.connection(), patience),
            cut: Box::pin(is_cut(cut.clone())),
            _open: bounds.open_connection(permit),
        };
        Some((Ok(connection), (listener, bounds, cut)))
    })
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                // Only latency suffers where the system refuses.
                let _ = tcp.set_nodelay(true);
                return tcp;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn is_cut(mut cut: watch::Receiver<bool>) {
    // An agent that is gone cuts its connections too.
    let _ = cut.wait_for(|cut| *cut).await;
}

/// One connection.
pub(super) struct Connection {
    tcp: TcpStream,
    peer: Peer,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    _open: OpenConnection,
}

impl Connection {
    /// An error where this connection has to end. Reading and writing both ask: either may be all that goes on.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            self.cut = Box::pin(std::future::ready(()));
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.peer.poll_gone(cx).is_ready() {
            tracing::debug!("a connection is cut: its peer does not speak, or does not read");
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

/// What the other end has done so far, and until when it has to do more.
struct Peer {
    budget: ConnectionBudget,
    patience: Patience,
    bytes_read: usize,
    /// Since the timer began.
    bytes_written: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Peer {
    fn new(budget: ConnectionBudget, patience: Patience) -> Peer {
        Peer {
            budget,
            patience,
            bytes_read: 0,
            bytes_written: 0,
            timer: None,
        }
    }

    /// Ready once it has left the agent waiting for too long.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let speaks = self.bytes_read >= PREFACE_BYTES;
        if speaks && !self.budget.has_unsent() {
            (self.timer, self.bytes_written) = (None, 0);
            return Poll::Pending;
        }
        let time = if speaks {
            self.patience.to_read
        } else {
            self.patience.to_speak
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(time)));
        while timer.as_mut().poll(cx).is_ready() {
            if self.bytes_written < PROGRESS_BYTES_LEAST {
                self.timer = None;
                return Poll::Ready(());
            }
            self.bytes_written = 0;
            timer.as_mut().reset(Instant::now() + time);
        }
        Poll::Pending
    }

    fn has_sent(&mut self, bytes: usize) {
        let spoke = self.bytes_read >= PREFACE_BYTES;
        self.bytes_read = self.bytes_read.saturating_add(bytes);
        if !spoke && self.bytes_read >= PREFACE_BYTES {
            (self.timer, self.bytes_written) = (None, 0);
        }
    }

    fn has_taken(&mut self, bytes: usize) {
        self.bytes_written = self.bytes_written.saturating_add(bytes);
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectionBudget;

    fn connect_info(&self) -> ConnectionBudget {
        self.peer.budget.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.peer.has_sent(buf.filled().len() - before);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        written.map_ok(|bytes| {
            self.peer.has_taken(bytes);
            bytes
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        written.map_ok(|bytes| {
            self.peer.has_taken(bytes);
            bytes
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::{super::bounds::Unsent, *};

    const PATIENCE: Patience = Patience {
        to_speak: Duration::from_millis(50),
        to_read: Duration::from_millis(50),
    };

    /// Both ends of a connection.
    async fn connect(bounds: &Arc<Bounds>) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move { cut.closed().await });
        let mut incoming = pin!(incoming(listener, bounds.clone(), PATIENCE, is_cut));
        let client = TcpStream::connect(address).await.unwrap();
        let connection = incoming.next().await.unwrap().unwrap();
        (client, connection)
    }

    #[tokio::test]
    async fn a_peer_that_says_too_little_is_cut_off() {
        let bounds = Bounds::new(1, 100, 100);
        let (mut client, mut connection) = connect(&bounds).await;
        client.write_all(b"PRI * HTTP/2.0").await.unwrap();
        let mut rest = Vec::new();
        let error = connection.read_to_end(&mut rest).await.unwrap_err();
        assert_eq!(
            (error.kind(), &rest[..]),
            (io::ErrorKind::TimedOut, &b"PRI * HTTP/2.0"[..])
        );
        drop(connection);
        assert_eq!(client.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(bounds.connections(), 0);
    }

    #[tokio::test]
    async fn a_peer_that_reads_nothing_of_its_answer_is_cut_off_and_an_idle_one_is_not() {
        let bounds = Bounds::new(1, 100, 100);
        let (mut client, mut connection) = connect(&bounds).await;
        client.write_all(&[b'x'; PREFACE_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let idle = tokio::time::timeout(PATIENCE.to_read * 3, connection.read_u8()).await;
        assert!(idle.is_err(), "{idle:?}");

        let unsent = Unsent::new(&bounds.charge(&connection.connect_info()));
        // One buffer full after the other, until the system takes no more.
        let error = loop {
            if let Err(error) = connection.write_all(&[0; 64 << 10]).await {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(unsent);
    }

    #[tokio::test]
    async fn a_peer_whose_window_is_full_is_cut_off_while_it_is_read() {
        let bounds = Bounds::new(1, 100, 100);
        let (mut client, mut connection) = connect(&bounds).await;
        client.write_all(&[b'x'; PREFACE_BYTES]).await.unwrap();
        connection.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
        let _unsent = Unsent::new(&bounds.charge(&connection.connect_info()));
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
