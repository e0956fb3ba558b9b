//! What keeps every promise passes, whatever happens to it; and breaks one as soon as a line of it is bent.

use corrente_history::model::{ModelSettings, sound_history};
use corrente_history::{Action, Class, Content, History, OffsetQuery, check};
use proptest::prelude::*;

fn settings() -> impl Strategy<Value = ModelSettings> {
    (20..3_000_usize, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(operations, idempotent, gives_up, removes)| ModelSettings {
            operations,
            idempotent,
            gives_up,
            removes,
        },
    )
}

/// A history in which nothing is removed, with something in it.
fn plain(seed: u64) -> History {
    sound_history(seed, ModelSettings { operations: 600, idempotent: false, gives_up: false, removes: false })
}

/// The classes that show once the history was bent.
fn bent(seed: u64, bend: impl FnOnce(&mut History)) -> Vec<Class> {
    let mut history = plain(seed);
    bend(&mut history);
    check(&history).classes()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn nothing_is_found_in_a_sound_history(seed in any::<u64>(), settings in settings()) {
        let history = sound_history(seed, settings);
        let verdict = check(&history);
        prop_assert!(verdict.is_sound(), "seed {seed}, {settings:?}: {:#?}", &verdict.violations[..1]);
        let lines: Vec<String> = history.lines().collect();
        prop_assert_eq!(History::read(lines.join("\n").as_bytes()).expect("a history"), history);
    }

    #[test]
    fn a_record_that_the_final_reading_lacks_is_missed(seed in any::<u64>(), at in any::<prop::sample::Index>()) {
        let found = bent(seed, |history| {
            let mut polls: Vec<_> = final_polls(history).filter(|poll| !poll.records.is_empty()).collect();
            let poll = at.get_mut(&mut polls);
            let record = at.index(poll.records.len());
            poll.records.remove(record);
        });
        let is_missed = found.iter().any(|class| class.is_loss() || *class == Class::LostRead);
        let is_skipped = found.iter().any(|class| {
            matches!(class, Class::SkipWithinPoll | Class::PollSkip | Class::Unseen)
        });
        prop_assert!(is_skipped, "{found:?}");
        // A copy that nobody else saw may be missing as if it had never been.
        prop_assert!(is_missed || found.len() == 1, "{found:?}");
    }

    #[test]
    fn another_record_in_its_place_is_noticed(seed in any::<u64>(), at in any::<prop::sample::Index>()) {
        let found = bent(seed, |history| {
            let mut polls: Vec<_> = final_polls(history).filter(|poll| poll.records.len() > 1).collect();
            let poll = at.get_mut(&mut polls);
            let place = at.index(poll.records.len() - 1);
            // Two copies of one record can be exchanged.
            if poll.records[place].content == poll.records[place + 1].content {
                poll.records[place].content = Content::Corrupt("a damaged filler".into());
            } else {
                let content = poll.records[place].content.clone();
                poll.records[place].content = poll.records[place + 1].content.clone();
                poll.records[place + 1].content = content;
            }
        });
        let grave = found.iter().any(|class| {
            matches!(class, Class::InconsistentOffsets | Class::LostWrite | Class::LostRead | Class::Phantom)
        });
        prop_assert!(grave, "{found:?}");
    }

    #[test]
    fn an_end_told_too_low_is_noticed(seed in any::<u64>(), at in any::<prop::sample::Index>()) {
        let found = bent(seed, |history| {
            let latest = history.operations.iter_mut().filter_map(|operation| match &mut operation.action {
                Action::ListOffsets { query: OffsetQuery::Latest, answer: Some(answer), .. }
                    if operation.is_final && answer.offset > 0 => Some(answer),
                _ => None,
            });
            let mut latest: Vec<_> = latest.collect();
            at.get_mut(&mut latest).offset -= 1;
        });
        let noticed = found.iter().any(|class| matches!(class, Class::StaleListOffsets | Class::EndWentBack));
        prop_assert!(noticed, "{found:?}");
    }
}

fn final_polls(history: &mut History) -> impl Iterator<Item = &mut corrente_history::Poll> {
    let finals = history.operations.iter_mut().filter(|operation| operation.is_final);
    finals.filter_map(|operation| match &mut operation.action {
        Action::Poll(polls) => polls.first_mut(),
        _ => None,
    })
}
