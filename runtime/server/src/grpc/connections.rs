//! Connections as they are accepted: bounded in number, each with a budget, and ended when the agent has stopped.

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
};
use tonic::transport::server::Connected;

use super::bounds::{Bounds, ConnectionBudget, OpenConnection};

/// How long to wait after the system could not give a connection, for instance for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Every connection that is accepted, no more at once than the bounds allow. They break when `cut` turns to true.
pub(super) fn incoming(
    listener: TcpListener,
    bounds: Arc<Bounds>,
    cut: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Connection>> {
    stream::unfold((listener, bounds, cut), |(listener, bounds, cut)| async move {
        let permit = bounds.free_connections.clone().acquire_owned().await;
        let permit = permit.expect("it is never closed");
        let tcp = accept(&listener).await;
        let connection = Connection {
            tcp,
            budget: bounds.connection(),
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
    budget: ConnectionBudget,
    cut: Pin<Box<dyn Future<Output = ()> + Send>>,
    _open: OpenConnection,
}

impl Connected for Connection {
    type ConnectInfo = ConnectionBudget;

    fn connect_info(&self) -> ConnectionBudget {
        self.budget.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // A connection is always being read, so this is where the end of the agent reaches it.
        if self.cut.as_mut().poll(cx).is_ready() {
            self.cut = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
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
