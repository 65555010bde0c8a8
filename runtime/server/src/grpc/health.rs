//! `grpc.health.v1.Health`: every service is served as long as the agent is ready, until it begins to stop.

use std::{pin::pin, sync::Arc, time::Duration};

use millstream_broker::Broker;
use millstream_proto::v1;
use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

use super::stopping;

/// The agent as a whole has no name.
const SERVICES: [&str; 8] = [
    "",
    v1::cluster_service_server::SERVICE_NAME,
    v1::consumer_service_server::SERVICE_NAME,
    v1::group_service_server::SERVICE_NAME,
    v1::module_service_server::SERVICE_NAME,
    v1::pipeline_service_server::SERVICE_NAME,
    v1::producer_service_server::SERVICE_NAME,
    v1::topic_service_server::SERVICE_NAME,
];

/// Between two looks at whether the agent is ready.
const LOOK: Duration = Duration::from_secs(1);

/// Says how the agent is until it begins to stop, and that it stops.
pub(super) async fn report(reporter: HealthReporter, broker: Arc<Broker>, stop: watch::Receiver<bool>) {
    let mut stop = pin!(stopping(stop));
    let mut said = None;
    loop {
        let status = match broker.ready() {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        };
        if said != Some(status) {
            say(&reporter, status).await;
            said = Some(status);
        }
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    say(&reporter, ServingStatus::NotServing).await;
}

async fn say(reporter: &HealthReporter, status: ServingStatus) {
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
