//! Whether the figures of a run are to be believed.
//!
//! A generator that cannot keep its own schedule measures itself. What is the broker's doing, however slow, is a
//! result.

use crate::plan::Mode;
use crate::report::Report;

/// Why the figures are not to be believed.
pub fn invalid(report: &Report) -> Vec<String> {
    let late = generator_ran_late(report);
    let starved = generator_was_starved(report);
    late.into_iter().chain(starved).collect()
}

/// What else is to be known before somebody believes them.
pub fn warnings(report: &Report) -> Vec<String> {
    let held = broker_did_not_keep_up(report);
    held.into_iter().collect()
}

fn generator_ran_late(report: &Report) -> Option<String> {
    let (slip, latency) = (report.slip_us.p999?, report.latency_us.p999?);
    let share_max = report.plan.slip_share_max;
    let advice = if report.plan.exact() { "lower the rate or give it more" } else { "give it" };
    (slip > latency * share_max).then(|| {
        format!(
            "the generator ran late: its slip p99.9, {slip:.0} µs, is more than {:.1} % of the latency p99.9, \
             {latency:.0} µs; {advice} CPUs of its own (--cpus)",
            share_max * 100.0
        )
    })
}

/// One that waits exactly uses its CPUs whole, and shows in its slip whether they were enough.
fn generator_was_starved(report: &Report) -> Option<String> {
    const SHARE_MAX: f64 = 0.95;
    let cpu_s = report.generator_cpu_s?;
    let available_s = report.seconds * report.plan.threads() as f64;
    let counts = report.mode == Mode::OpenLoop && !report.plan.exact() && report.seconds > 0.0;
    (counts && cpu_s > SHARE_MAX * available_s).then(|| {
        format!("the generator used {cpu_s:.1} s of CPU in {:.1} s: it was the bottleneck", report.seconds)
    })
}

fn broker_did_not_keep_up(report: &Report) -> Option<String> {
    let sending = report.plan.sending().filter(|_| report.mode == Mode::OpenLoop)?;
    (report.held_batches > 0).then(|| {
        format!(
            "the broker did not keep up: {} batches were due and waited, as {} were in flight",
            report.held_batches, sending.in_flight_max
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::recorder::Completion;
    use crate::report::tests::{recorder, report};
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_generator_on_time_is_believed() {
        let report = report(&produce_plan(), &recorder(Duration::ZERO));
        assert!(
            report.is_valid() && report.warnings.is_empty(),
            "{:?} {:?}",
            report.invalid,
            report.warnings
        );
    }

    #[test]
    fn a_late_generator_is_not() {
        let report = report(&produce_plan(), &recorder(5 * MS));
        assert!(report.invalid[0].contains("the generator ran late"), "{:?}", report.invalid);
        assert!(report.invalid[0].contains("give it CPUs of its own"), "{:?}", report.invalid);
    }

    #[test]
    fn how_late_it_may_be_is_for_the_plan_to_say() {
        let mut plan = produce_plan();
        // A batch that takes 100 µs and leaves 100 µs late has a slip of half its latency.
        let recorder = recorder(MS / 10);
        plan.slip_share_max = 0.45;
        assert!(!report(&plan, &recorder).is_valid());
        plan.slip_share_max = 0.55;
        assert!(report(&plan, &recorder).is_valid());
    }

    #[test]
    fn a_broker_that_does_not_keep_up_is_a_result() {
        let mut recorder = recorder(Duration::ZERO);
        let due = Duration::from_secs(2);
        let (possible, done) = (due + 40 * MS, due + 41 * MS);
        recorder.acknowledged(Completion { due, possible, sent: possible, done, records: 1, bytes: 1 });
        let report = report(&produce_plan(), &recorder);
        assert!(report.is_valid(), "{:?}", report.invalid);
        assert_eq!(
            report.warnings,
            ["the broker did not keep up: 1 batches were due and waited, as 64 were in flight"]
        );
    }

    #[test]
    fn a_starved_generator_is_not_believed_unless_it_spins() {
        let mut report = report(&produce_plan(), &recorder(Duration::ZERO));
        report.generator_cpu_s = Some(report.seconds * 0.96);
        assert!(invalid(&report)[0].contains("it was the bottleneck"), "{:?}", invalid(&report));
        report.plan.cpus = vec![0];
        assert!(invalid(&report).is_empty());
    }
}
