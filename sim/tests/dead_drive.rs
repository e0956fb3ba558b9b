//! Of two drives one dies under load: its logs take no more, all others go on, and when it has been replaced by one
//! with the same content everything acknowledged is there.

use std::collections::BTreeMap;
use std::time::Duration;

use corrente_history::{Action, Class, Outcome};
use corrente_sim::plan::{Disruption, Kind, Plan};
use corrente_sim::power_cut::{self, Planted};
use corrente_sim::trouble::{Mode, Trouble};

/// A broker with two drives and six partitions, of which the second drive dies and stays dead until all is answered.
fn plan(seed: u64) -> Plan {
    let mut plan = Plan::draw(seed, Mode::Failing);
    plan.broker.data_dirs = 2;
    plan.load.partitions = 6;
    plan.load.partitions_later = 6;
    plan.load.keys = 200;
    plan.load.pauses = vec![];
    for producer in &mut plan.load.producers {
        // Nobody waits for the answer to one record before he sends the next.
        producer.records = 200;
        producer.unacked_max = 1_000;
    }
    // It dies for longer than any client tries.
    let trouble = Trouble {
        lasts: Duration::from_secs(3_000),
        dead_drive: Some("/data-1".into()),
        ..Trouble::default()
    };
    plan.disruptions = vec![Disruption {
        after_sent: 60,
        delay: Duration::ZERO,
        kind: Kind::StaysUp,
        down: Duration::ZERO,
        shards: plan.shards,
        ends_at_start: vec![],
        silence: Duration::ZERO,
        trouble,
        reads_again: false,
    }];
    plan
}

#[test]
fn only_its_own_logs_go_down() {
    for seed in 0..3 {
        let (report, history) = power_cut::run_and_tell(&plan(seed), Planted::Nothing);
        // Whoever sends to the dead drive is turned away in the end, in whatever words; nothing else may be amiss.
        let amiss = report.violations.iter().filter(|violation| violation.class != Class::Liveness);
        let found: Vec<String> = amiss.take(5).map(ToString::to_string).collect();
        assert!(found.is_empty(), "seed {seed}: {}", found.join("\n"));
        // Of each partition: how many records were acknowledged, and how many given up.
        let mut outcomes: BTreeMap<u32, [u32; 2]> = BTreeMap::new();
        for operation in &history.operations {
            let Action::Send(records) = &operation.action else { continue };
            let outcome = outcomes.entry(records[0].log.partition).or_default();
            outcome[usize::from(operation.outcome != Outcome::Ok)] += 1;
        }
        let down = outcomes.values().filter(|[_, given_up]| *given_up > 0).count();
        let up = outcomes.values().filter(|[acked, given_up]| *acked > 0 && *given_up == 0).count();
        assert!(down > 0, "seed {seed}: no partition went down with the drive: {outcomes:?}");
        assert!(up > 1, "seed {seed}: too few partitions outlived the drive: {outcomes:?}");
    }
}
