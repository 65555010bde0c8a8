//! HTTP for operators: whether the agent lives, and whether it takes requests.

use std::{future::Future, sync::Arc};

use anyhow::Context as _;
use axum::{Router, http::StatusCode, routing::get};
use millstream_broker::Broker;
use tokio::net::TcpListener;

/// Serves until `stop` resolves.
pub async fn serve(
    broker: Arc<Broker>,
    listener: TcpListener,
    stop: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let ready = move || {
        let failure = broker.failure().borrow().clone();
        async move {
            match failure {
                None => (StatusCode::OK, "ready\n".to_owned()),
                Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    let routes = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready));
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await
        .context("the HTTP server ended")
}
