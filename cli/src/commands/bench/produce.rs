//! `corrente bench produce`: the way to the acknowledgement.

use std::time::Duration;

use clap::Args;
use corrente_loadgen::plan::{Extent, Pace, ProducePlan, Rate, Work};
use corrente_loadgen::profile::Profile;

use super::profile;
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
    /// Send records like those that bench profile found, at a rate that changes as it did then, laid over the time that
    /// is measured. Default of --rate and --duration: what was recorded
    #[arg(
        long,
        value_name = "PROFILE",
        value_parser = profile::read,
        conflicts_with_all = ["record_size", "key_size", "batch_records", "keys", "key_skew", "compression"]
    )]
    replay: Option<Box<Profile>>,
}

impl ProduceArgs {
    pub fn plan(self) -> (Run, Work) {
        let mut plan = self.sending.open_loop(&self.run);
        if let Some(profile) = self.replay {
            replay(&mut plan, *profile, self.sending.rate, self.run.extent());
        }
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

/// What is not said is as it was when the profile was taken, if that is known.
fn replay(plan: &mut ProducePlan, profile: Profile, rate: Option<Rate>, extent: Option<Extent>) {
    let recorded_s = profile.arrivals.as_ref().map(|arrivals| arrivals.seconds());
    if let (None, Some(mean), Pace::OpenLoop { arrivals, .. }) = (rate, profile.records_per_s(), plan.pace) {
        plan.pace = Pace::OpenLoop { rate: Rate::Constant((mean.round() as u64).max(1)), arrivals };
    }
    if let (None, Some(seconds), Some(_)) = (extent, recorded_s, profile.records_per_s()) {
        plan.extent = Extent::Duration(Duration::from_secs_f64(seconds));
    }
    plan.replay = Some(profile);
}
