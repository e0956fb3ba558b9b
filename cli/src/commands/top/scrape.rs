//! One look at a broker's metrics over HTTP.

use std::time::Instant;

use anyhow::{Context, Result};

use super::open_metrics::Samples;
use crate::http;

/// What was read, and when.
#[derive(Debug)]
pub struct Scrape {
    pub samples: Samples,
    pub at: Instant,
}

impl Scrape {
    pub async fn of(control: &str) -> Result<Scrape> {
        let text = http::get(control, "/metrics").await?;
        let samples = Samples::parse(&text)
            .with_context(|| format!("{control} answers with no whole OpenMetrics text"))?;
        Ok(Scrape { samples, at: Instant::now() })
    }
}
