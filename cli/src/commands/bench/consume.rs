//! `corrente bench consume`: reading what is there.

use clap::Args;
use corrente_loadgen::plan::{Begin, ConsumePlan, Fill, Work};

use super::shared::Run;

/// Read records as fast as they come.
///
/// A topic that does not exist is created and filled first, with --records records; that is not measured. No latency is
/// taken: `corrente bench e2e` measures the way from end to end.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    #[command(flatten)]
    run: Run,
    /// Where to begin: earliest reads what is there, latest only what arrives meanwhile.
    #[arg(long, value_name = "earliest|latest", default_value = "earliest", value_parser = parse_begin)]
    from: Begin,
    /// Independent consumers, each reading everything.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: usize,
}

/// Records a new topic is filled with for a consumer that was not told a number.
const DEFAULT_FILL: u64 = 1_000_000;

impl ConsumeArgs {
    pub fn plan(self) -> (Run, Work) {
        let records = self.run.records.unwrap_or(DEFAULT_FILL);
        let fill = (self.from == Begin::Earliest).then(|| Fill { records, shape: self.run.shape() });
        let extent = self.run.extent();
        let plan = ConsumePlan { from: self.from, extent, consumers: self.consumers, fill, feed: None };
        (self.run, Work::Consume(plan))
    }
}

fn parse_begin(text: &str) -> Result<Begin, String> {
    match text {
        "earliest" => Ok(Begin::Earliest),
        "latest" => Ok(Begin::Latest),
        _ => Err("use earliest or latest".to_owned()),
    }
}
