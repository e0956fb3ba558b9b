//! `corrente bench produce`: the way to the acknowledgement.

use clap::Args;
use corrente_loadgen::plan::{Pace, Work};

use super::shared::{Run, Sending};

/// Send record batches on a schedule and measure the time to their acknowledgement.
///
/// Latency counts from the moment the schedule intended, not from the sending: a broker that stalls is charged for
/// every record it delayed. Batches are prepared beforehand, a ring of up to 64 different ones with random,
/// incompressible values, and sent again and again.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    sending: Sending,
    /// Send as fast as acknowledgements make room instead of on a schedule; such latencies hide what a stall delays.
    #[arg(long, conflicts_with_all = ["rate", "arrivals"])]
    closed_loop: bool,
    /// Have the broker say where the time of each batch went: in its queue, on its disk, to its replicas, and until the
    /// answer was made.
    #[arg(long)]
    stages: bool,
    /// Batches in flight at most, over all connections. Default: one for each connection in a closed loop, 4096 else
    #[arg(long, value_name = "N")]
    in_flight: Option<usize>,
}

impl ProduceArgs {
    pub fn plan(self) -> (Run, Work) {
        let mut plan = self.sending.open_loop(&self.run);
        if self.closed_loop {
            plan.pace = Pace::ClosedLoop;
            plan.in_flight_max = plan.connections;
        }
        if let Some(in_flight) = self.in_flight {
            plan.in_flight_max = in_flight;
        }
        plan.stages = self.stages;
        (self.run, Work::Produce(plan))
    }
}
