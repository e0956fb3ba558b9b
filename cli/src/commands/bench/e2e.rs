//! `corrente bench e2e`: the way from a producer to its consumers.

use clap::Args;
use corrente_loadgen::plan::{Begin, ConsumePlan, Work};

use super::shared::{Run, Sending};

/// Send record batches on a schedule, read them at the tail, and measure from end to end.
///
/// Latency counts from the moment the schedule intended to the moment a consumer holds the record; with several
/// consumers, for each of them.
#[derive(Debug, Args)]
pub struct E2eArgs {
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    sending: Sending,
    /// Independent consumers, each reading everything.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: usize,
}

impl E2eArgs {
    pub fn plan(self) -> (Run, Work) {
        let feed = Some(self.sending.open_loop(&self.run));
        let plan =
            ConsumePlan { from: Begin::Latest, extent: None, consumers: self.consumers, fill: None, feed };
        (self.run, Work::Consume(plan))
    }
}
