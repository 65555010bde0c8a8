//! HTTP for operators: whether the agent lives, whether it takes requests, and its figures.

use std::{fmt::Write as _, sync::Arc};

use anyhow::Context as _;
use axum::{
    Router,
    http::{StatusCode, header},
    routing::get,
};
use millstream_broker::{Broker, Check};
use tokio::{net::TcpListener, sync::watch};

use crate::metrics::Metrics;

/// Serves until `end` turns to true. From when `stop` does the agent is not ready any more.
pub async fn serve(
    broker: Arc<Broker>,
    metrics: Metrics,
    listener: TcpListener,
    stop: watch::Receiver<bool>,
    mut end: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let metrics = Arc::new(metrics);
    let alive = {
        let broker = broker.clone();
        move || std::future::ready(alive(&broker))
    };
    let ready = move || {
        let (broker, stopping) = (broker.clone(), *stop.borrow());
        async move { ready(&broker, stopping).await }
    };
    let metrics = move || {
        let text = metrics.text();
        async move { ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], text) }
    };
    let routes = Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics));
    axum::serve(listener, routes)
        .with_graceful_shutdown(async move {
            // The sender is gone only with the agent itself.
            let _ = end.wait_for(|end| *end).await;
        })
        .await
        .context("the HTTP server ended")
}

/// Whether the process does anything at all: one that has failed for good is to be started again.
fn alive(broker: &Broker) -> (StatusCode, String) {
    match broker.failure().borrow().as_ref() {
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        None => (StatusCode::OK, "alive\n".to_owned()),
    }
}

/// Whether the agent takes records; where it does not, a line for each thing that was looked at.
async fn ready(broker: &Broker, stopping: bool) -> (StatusCode, String) {
    let mut checks = broker.checks().await;
    if stopping {
        checks[0].trouble = Some("the agent is stopping".to_owned());
    }
    if checks.iter().all(|check| check.trouble.is_none()) {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let mut text = "not ready\n".to_owned();
    for Check { name, trouble } in checks {
        let found = trouble.as_deref().unwrap_or("ok");
        writeln!(text, "{name}: {found}").expect("a string takes everything");
    }
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
