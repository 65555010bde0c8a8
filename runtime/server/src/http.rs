//! HTTP for operators: whether the agent lives, whether it takes requests, and its figures.

use std::sync::Arc;

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use millstream_broker::Broker;
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// Serves until `stop` turns to true.
pub async fn serve(
    broker: Arc<Broker>,
    metrics: Metrics,
    listener: TcpListener,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let metrics = Arc::new(metrics);
    let ready = move || {
        let ready = broker.ready();
        async move {
            match ready {
                Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            }
        }
    };
    let metrics = move || {
        let text = metrics.text();
        async move { ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text) }
    };
    let routes = Router::new()
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            // The sender is gone only with the agent itself.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
        .context("the HTTP server ended")
}
