//! The epoch cache, as text and as properties.

use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_replication::leader_epoch::LeaderEpochs;
use proptest::prelude::*;

use crate::text;

#[test]
fn the_table_of_epochs() {
    let mut epochs = LeaderEpochs::new();
    text::check("leader_epoch.txt", include_str!("../../testdata/leader_epoch.txt"), |command| {
        let numbers: Vec<u64> =
            text::arguments(command).iter().filter_map(|word| word.parse().ok()).collect();
        let epoch = |number: u64| LeaderEpoch(u32::try_from(number).expect("a small epoch"));
        match command.split_whitespace().next() {
            Some("new") => epochs = LeaderEpochs::new(),
            Some("append") => epochs.append(epoch(numbers[0]), Offset(numbers[1])),
            Some("truncate_to") => epochs.truncate_to(Offset(numbers[0])),
            Some("truncate_before") => epochs.truncate_before(Offset(numbers[0])),
            Some("epoch_at") => {
                return epochs
                    .epoch_at(Offset(numbers[0]))
                    .map_or("none".to_owned(), |epoch| epoch.to_string());
            }
            Some("end_of") => {
                return match epochs.end_offset_for(epoch(numbers[0]), Offset(numbers[1])) {
                    Some(found) => format!("epoch {} ends at {}", found.epoch, found.end),
                    None => "this log cannot tell".to_owned(),
                };
            }
            other => panic!("unknown command {other:?}"),
        }
        epochs.entries().iter().map(|entry| format!("{}@{} ", entry.epoch, entry.start)).collect()
    });
}

proptest! {
    /// A log is the epoch of each of its records; the cache must answer as a walk over them would.
    #[test]
    fn the_cache_agrees_with_the_records(
        steps in proptest::collection::vec((1u32..3, 0u64..5), 1..20),
        cut in 0u64..60,
    ) {
        let mut records: Vec<u32> = Vec::new();
        let mut epochs = LeaderEpochs::new();
        let mut epoch = 0;
        for (gap, written) in steps {
            epoch += gap;
            epochs.append(LeaderEpoch(epoch), Offset(records.len() as u64));
            records.extend((0..written).map(|_| epoch));
        }
        records.truncate(usize::try_from(cut).expect("small"));
        let log_end = Offset(records.len() as u64);
        epochs.truncate_to(log_end);
        epochs.invariants();
        for (offset, written_by) in (0..).zip(&records) {
            prop_assert_eq!(epochs.epoch_at(Offset(offset)), Some(LeaderEpoch(*written_by)));
        }
        for asked in 0..=epoch + 1 {
            let end = records.iter().filter(|written_by| **written_by <= asked).count() as u64;
            let floor = records.iter().filter(|written_by| **written_by <= asked).max().copied();
            let known = records.last().is_some_and(|latest| asked <= *latest);
            let found = epochs.end_offset_for(LeaderEpoch(asked), log_end);
            prop_assert_eq!(found.map(|found| found.end), known.then_some(Offset(end)));
            prop_assert_eq!(found.map(|found| found.epoch.0), known.then_some(floor.unwrap_or(asked)));
        }
    }
}
