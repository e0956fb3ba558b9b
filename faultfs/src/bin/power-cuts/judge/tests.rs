use super::*;

const LOG: Log = Log(0, 0);

fn id(counter: u32) -> RecordId {
    RecordId(1, counter)
}

/// Topic 0 with two records, both acknowledged, one seen.
fn deeds() -> Vec<Deed> {
    vec![
        Deed::TopicAsked { topic: 0, name: "t".into(), partitions: 1 },
        Deed::TopicMade { topic: 0, id: "id-0".into() },
        Deed::Sent { record: id(0), log: LOG },
        Deed::Sent { record: id(1), log: LOG },
        Deed::Acked { record: id(0), offset: 0 },
        Deed::Seen { record: id(0), log: LOG, offset: 0 },
        Deed::Acked { record: id(1), offset: 1 },
    ]
}

fn found(records: &[(u64, u32)], end: u64) -> Found {
    let records = records.iter().map(|(offset, counter)| (*offset, Ok((id(*counter), LOG)))).collect();
    Found {
        topics: vec![FoundTopic {
            name: "t".into(),
            id: "id-0".into(),
            partitions: vec![records],
            ends: vec![Some(end)],
            refusals: vec![],
        }],
    }
}

fn classes(deeds: &[Deed], found: &Found) -> Vec<Class> {
    let stamped: Vec<Stamped> = deeds.iter().map(|deed| Stamped { at_ns: 1, deed: deed.clone() }).collect();
    judge(&stamped, found).0.into_iter().map(|violation| violation.class).collect()
}

#[test]
fn what_was_kept_is_clean_and_counted() {
    let stamped: Vec<Stamped> = deeds().into_iter().map(|deed| Stamped { at_ns: 1, deed }).collect();
    let (violations, judged) = judge(&stamped, &found(&[(0, 0), (1, 1)], 2));
    assert_eq!(violations, []);
    assert_eq!(judged, Judged { acked: 2, seen: 1, found: 2 });
}

#[test]
fn an_acknowledged_record_that_is_gone_or_another_is_lost() {
    assert_eq!(classes(&deeds(), &found(&[(0, 0)], 1)), [Class::LostAck]);
    assert_eq!(classes(&deeds(), &found(&[(0, 0), (1, 0)], 2)), [Class::LostAck]);
}

#[test]
fn a_record_that_was_read_is_lost_even_without_its_acknowledgement() {
    let mut seen_only = deeds();
    seen_only.retain(|deed| !matches!(deed, Deed::Acked { .. }));
    assert_eq!(classes(&seen_only, &found(&[], 0)), [Class::LostRead]);
}

#[test]
fn what_was_never_acknowledged_may_be_there_or_not() {
    let mut unanswered = deeds();
    unanswered.pop();
    assert_eq!(classes(&unanswered, &found(&[(0, 0)], 1)), []);
    assert_eq!(classes(&unanswered, &found(&[(0, 0), (1, 1)], 2)), []);
    // Sent again after a kill, it may stand twice.
    assert_eq!(classes(&unanswered, &found(&[(0, 0), (1, 1), (2, 1)], 3)), []);
}

#[test]
fn what_nobody_sent_there_is_a_phantom() {
    assert_eq!(classes(&deeds(), &found(&[(0, 0), (1, 1), (2, 9)], 3)), [Class::Phantom]);
    let mut damaged = found(&[(0, 0), (1, 1)], 3);
    damaged.topics[0].partitions[0].push((2, Err("filler".into())));
    assert_eq!(classes(&deeds(), &damaged), [Class::Phantom]);
    let mut refused = deeds();
    refused.push(Deed::Sent { record: id(2), log: LOG });
    refused.push(Deed::Refused { record: id(2) });
    assert_eq!(classes(&refused, &found(&[(0, 0), (1, 1), (2, 2)], 3)), [Class::Phantom]);
    let mut elsewhere = deeds();
    elsewhere.push(Deed::Sent { record: id(2), log: Log(0, 1) });
    assert_eq!(classes(&elsewhere, &found(&[(0, 0), (1, 1), (2, 2)], 3)), [Class::Phantom]);
    let mut stranger = found(&[(0, 0), (1, 1)], 2);
    stranger.topics.push(FoundTopic { name: "u".into(), id: "id-9".into(), ..FoundTopic::default() });
    assert_eq!(classes(&deeds(), &stranger), [Class::Phantom]);
}

#[test]
fn offsets_follow_each_other_to_the_end_told() {
    assert_eq!(classes(&deeds(), &found(&[(0, 0), (1, 1)], 3)), [Class::Gap]);
    let mut third = deeds();
    third.push(Deed::Sent { record: id(2), log: LOG });
    assert_eq!(classes(&third, &found(&[(0, 0), (1, 1), (3, 2)], 4)), [Class::Gap]);
    let mut first_gone = found(&[(1, 1)], 2);
    assert_eq!(classes(&deeds()[..4], &first_gone), [Class::Gap]);
    first_gone.topics[0].ends = vec![None];
    assert_eq!(classes(&deeds()[..4], &first_gone), [Class::Gap]);
}

#[test]
fn a_partition_that_is_not_served_is_refused_and_its_records_lost() {
    let mut refused = found(&[], 0);
    refused.topics[0].ends = vec![None];
    refused.topics[0].refusals = vec!["damaged".into()];
    assert_eq!(
        classes(&deeds(), &refused),
        [Class::LostAck, Class::LostAck, Class::LostRead, Class::Refused]
    );
}

#[test]
fn topics_stay_made_and_stay_deleted() {
    let all_lost = [Class::LostAck, Class::LostAck, Class::LostRead, Class::LostTopic];
    assert_eq!(classes(&deeds(), &Found::default()), all_lost);
    let mut deleting = deeds();
    deleting.push(Deed::DeleteAsked { topic: 0 });
    assert_eq!(classes(&deleting, &Found::default()), []);
    assert_eq!(classes(&deleting, &found(&[(0, 0)], 1)), []);
    deleting.push(Deed::Deleted { topic: 0 });
    assert_eq!(classes(&deleting, &Found::default()), []);
    assert_eq!(classes(&deleting, &found(&[(0, 0)], 1)), [Class::TopicBack]);
}

#[test]
fn a_topic_asked_for_may_be_there_under_an_id_not_told() {
    let mut asked = deeds();
    asked.push(Deed::TopicAsked { topic: 1, name: "u".into(), partitions: 1 });
    let mut with_it = found(&[(0, 0), (1, 1)], 2);
    with_it.topics.push(FoundTopic { name: "u".into(), id: "id-1".into(), ..FoundTopic::default() });
    assert_eq!(classes(&asked, &with_it), []);
}

#[test]
fn trouble_while_the_run_was_recorded_counts() {
    let mut troubled = deeds();
    troubled.push(Deed::Trouble { what: "a reader was refused".into() });
    assert_eq!(classes(&troubled, &found(&[(0, 0), (1, 1)], 2)), [Class::Trouble]);
}

#[test]
fn of_many_findings_the_first_are_told_and_the_rest_counted() {
    let mut many = deeds();
    for counter in 2..22 {
        many.push(Deed::Sent { record: id(counter), log: LOG });
        many.push(Deed::Acked { record: id(counter), offset: counter.into() });
    }
    let stamped: Vec<Stamped> = many.into_iter().map(|deed| Stamped { at_ns: 1, deed }).collect();
    let (violations, _) = judge(&stamped, &found(&[(0, 0), (1, 1)], 2));
    assert_eq!(violations.len(), 6);
    assert_eq!(violations[5].detail, "and 15 more");
}
