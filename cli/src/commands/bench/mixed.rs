//! `corrente bench mixed`: sending while others catch up.

use clap::Args;
use corrente_loadgen::plan::{Fill, MixedPlan, Work};

use super::shared::{Run, Sending};
use crate::units::parse_count;

/// Send record batches on a schedule while consumers read the topic from its start.
///
/// Latency is the way to the acknowledgement, as of `corrente bench produce`, whose run on the same topic shows what it
/// is without readers. A consumer that has read everything begins again. A topic that does not exist is created and
/// filled first, which is not measured.
#[derive(Debug, Args)]
pub struct MixedArgs {
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    sending: Sending,
    /// Independent consumers, each reading everything.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: usize,
    /// Records that a new topic is filled with; more than memory holds are read from the disk.
    #[arg(long, value_name = "N", value_parser = parse_count, default_value = "1M")]
    backlog: u64,
}

impl MixedArgs {
    pub fn plan(self) -> (Run, Work) {
        let fill = Fill { records: self.backlog, shape: self.run.shape() };
        let feed = self.sending.open_loop(&self.run);
        (self.run, Work::Mixed(MixedPlan { feed, consumers: self.consumers, fill }))
    }
}
