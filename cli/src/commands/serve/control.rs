//! The HTTP that operators and their tools speak to a node: metrics and health.
//!
//! Runs on the control thread, never on a shard; it learns what it tells by asking them.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use corrente_broker::{Config, ReportHandle};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::{debug, metrics};

/// How long shards may take to answer before they count as not answering.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the listener knows of the node; clones share it.
#[derive(Clone)]
pub struct Control {
    config: Arc<Config>,
    node: Arc<OnceLock<ReportHandle>>,
    draining: Arc<OnceLock<()>>,
}

impl Control {
    /// Of a node that is to be started so.
    pub fn new(config: &Config) -> Control {
        Control { config: Arc::new(config.clone()), node: Arc::default(), draining: Arc::default() }
    }

    /// Listens from now on, before the node serves: a start that takes its time is alive and not ready. The address
    /// that it got.
    pub async fn listen(&self, address: SocketAddr) -> Result<SocketAddr> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for metrics"))?;
        let bound = listener.local_addr().context("the address for metrics")?;
        let routes = Router::new()
            .route("/metrics", get(scrape))
            .route("/debug/shards", get(look_at_shards))
            .route("/debug/config", get(look_at_config))
            .route("/livez", get(async || "alive\n"))
            .route("/readyz", get(readiness))
            .with_state(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).await {
                tracing::error!(%error, "metrics are served no more");
            }
        });
        Ok(bound)
    }

    /// The node serves.
    pub fn started(&self, node: ReportHandle) {
        // A node starts once.
        let _ = self.node.set(node);
    }

    /// The node takes no more connections.
    pub fn drains(&self) {
        let _ = self.draining.set(());
    }
}

async fn scrape(State(control): State<Control>) -> Response {
    let Some(node) = control.node.get() else { return unavailable("the node is starting") };
    let Ok(report) = timeout(PATIENCE, node.report()).await else {
        return unavailable("a shard does not answer");
    };
    match metrics::text(report) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn look_at_shards(State(control): State<Control>) -> Response {
    let Some(node) = control.node.get() else { return unavailable("the node is starting") };
    match timeout(PATIENCE, node.report()).await {
        Ok(report) => Json(debug::shards(&report)).into_response(),
        Err(_) => unavailable("a shard does not answer"),
    }
}

async fn look_at_config(State(control): State<Control>) -> Response {
    Json(&*control.config).into_response()
}

async fn readiness(State(control): State<Control>) -> Response {
    let Some(node) = control.node.get() else { return unavailable("the node is starting") };
    if control.draining.get().is_some() {
        return unavailable("the node is stopping");
    }
    match timeout(PATIENCE, node.is_serving()).await {
        Ok(true) => "ready\n".into_response(),
        Ok(false) => unavailable("a shard has stopped"),
        Err(_) => unavailable("a shard does not answer"),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}
