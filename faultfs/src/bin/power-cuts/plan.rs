//! What a campaign does, drawn from its seed: how each run is recorded and where its power is cut.

use corrente_faultfs::cut::{Mode, pending_counts};
use corrente_faultfs::fault::Latency;
use corrente_faultfs::recording::Recording;
use serde::{Deserialize, Serialize};

/// Cuts of one recorded run.
pub const CUTS_PER_RUN: usize = 50;
/// So many runs follow each other on one disk: each after the first begins on what a cut of the one before left.
const RUNS_IN_A_ROW: usize = 3;
/// A campaign has at least so many runs, however few its cuts.
const RUNS_MIN: usize = 2;

/// What a campaign was asked to do.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Campaign {
    pub seed: u64,
    pub cuts: usize,
    /// The flush was taken out of the broker: loss has to be found.
    pub negative_control: bool,
    /// Of the broker and of this program: another one needs another campaign.
    pub programs: String,
}

/// One run to be recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub number: usize,
    pub seed: u64,
    /// Begins on what a cut of the run before left.
    pub continues: bool,
    pub cuts: usize,
    /// How slow the disk is.
    pub latency: Latency,
    pub shards: u32,
}

/// One cut to be made.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cut {
    /// Behind how many events of the recording.
    pub event: usize,
    pub mode: Mode,
    pub seed: u64,
    /// How many shards the broker has that starts on it.
    pub shards: u32,
}

impl Campaign {
    /// All runs.
    pub fn runs(&self) -> Vec<Run> {
        let count = self.cuts.div_ceil(CUTS_PER_RUN).max(RUNS_MIN.min(self.cuts));
        let mut chance = fastrand::Rng::with_seed(self.seed);
        let cuts = |number: usize| self.cuts / count + usize::from(number < self.cuts % count);
        (0..count)
            .map(|number| Run {
                number,
                seed: chance.u64(..),
                // A disk without acknowledged records on it is no ground for a next run.
                continues: !self.negative_control && number % RUNS_IN_A_ROW != 0,
                cuts: cuts(number),
                latency: latency(&mut chance),
                shards: chance.u32(1..=3),
            })
            .collect()
    }
}

/// From a quick drive to a slow one; a slower one leaves more under way at a cut.
fn latency(chance: &mut fastrand::Rng) -> Latency {
    let mut bounds = |from: u64, to: u64| {
        let least = chance.u64(from..to);
        (least, chance.u64(least..=4 * to))
    };
    Latency { read_us: (0, 0), write_us: bounds(50, 1_000), flush_us: bounds(500, 4_000) }
}

impl Run {
    /// Its cuts, in the order of its recording. Anywhere in it, but the more writes are pending the more often.
    pub fn cuts(&self, recording: &Recording) -> Vec<Cut> {
        self.draw_cuts(&pending_counts(&recording.events))
    }

    fn draw_cuts(&self, pending: &[u64]) -> Vec<Cut> {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ 1);
        // What all events up to one weigh together.
        let mut weights = Vec::with_capacity(pending.len());
        let mut total = 0;
        for count in pending {
            total += 1 + count;
            weights.push(total);
        }
        let mut cuts: Vec<Cut> = (0..self.cuts)
            .map(|_| Cut {
                event: {
                    let drawn = chance.u64(..total);
                    weights.partition_point(|weight| *weight <= drawn)
                },
                mode: mode(&mut chance),
                seed: chance.u64(..),
                shards: chance.u32(1..=3),
            })
            .collect();
        cuts.sort_by_key(|cut| cut.event);
        cuts
    }
}

/// Mostly those that leave much to chance.
fn mode(chance: &mut fastrand::Rng) -> Mode {
    match chance.u32(..100) {
        0..12 => Mode::AllLost,
        12..20 => Mode::AllKept,
        20..50 => Mode::Subset,
        50..88 => Mode::Shuffled,
        _ => Mode::LastOnly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(cuts: usize, negative_control: bool) -> Campaign {
        Campaign { seed: 7, cuts, negative_control, programs: String::new() }
    }

    #[test]
    fn all_cuts_are_shared_out_and_the_same_seed_draws_the_same() {
        for cuts in [1, 2, 20, 49, 51, 300, 301] {
            let runs = campaign(cuts, false).runs();
            assert_eq!(runs.iter().map(|run| run.cuts).sum::<usize>(), cuts);
            assert!(runs.iter().all(|run| (1..=CUTS_PER_RUN).contains(&run.cuts)), "{runs:?}");
            assert!(!runs[0].continues);
        }
        assert_eq!(campaign(300, false).runs(), campaign(300, false).runs());
        assert!(campaign(300, true).runs().iter().all(|run| !run.continues));
        assert_eq!(campaign(300, false).runs().iter().filter(|run| run.continues).count(), 4);
    }

    #[test]
    fn cuts_lie_within_the_recording_and_in_order() {
        let run = &campaign(300, false).runs()[2];
        let calm = [0; 1001];
        let cuts = run.draw_cuts(&calm);
        assert_eq!(cuts.len(), run.cuts);
        assert!(cuts.is_sorted_by_key(|cut| cut.event) && cuts.iter().all(|cut| cut.event <= 1000));
        assert_eq!(cuts, run.draw_cuts(&calm));
        let mut stormy = calm;
        stormy[500..600].fill(99);
        let within = run.draw_cuts(&stormy).iter().filter(|cut| (500..600).contains(&cut.event)).count();
        assert!(within * 2 > run.cuts, "{within} of {} where much is pending", run.cuts);
        assert!(run.latency.check().is_ok());
    }
}
