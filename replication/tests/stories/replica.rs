//! The replica machine, as text and as properties.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset};
use corrente_replication::leader_epoch::LeaderEpochs;
use corrente_replication::replica::{Event, Replica, Role};
use proptest::prelude::*;

use crate::text;

#[test]
fn the_table_of_one_replica() {
    let mut replica = new_replica(1, 0);
    text::check("replica.txt", include_str!("../../testdata/replica.txt"), |command| {
        let words = text::arguments(command);
        let event = match command.split_whitespace().next() {
            Some("new") => {
                replica = new_replica(argument(command, "min_insync"), argument(command, "log_end"));
                return state(&replica);
            }
            Some("ack") => return acks(&replica, Offset(text::number(words[0]))),
            Some("lead") => Event::BecomeLeader {
                epoch: LeaderEpoch(argument(command, "epoch")),
                log_end: Offset(argument(command, "log_end")),
            },
            Some("append") => Event::Appended { end: Offset(text::number(words[0])) },
            Some("flush") => Event::Flushed { end: Offset(text::number(words[0])) },
            Some("fence") => Event::Fenced { reason: words.join(" ") },
            other => panic!("unknown command {other:?}"),
        };
        step(&mut replica, event)
    });
}

fn new_replica(min_insync: usize, log_end: u64) -> Replica {
    Replica::new(NodeId(1), min_insync, LeaderEpochs::new(), Offset(log_end))
}

fn argument<N: std::str::FromStr>(command: &str, key: &str) -> N {
    text::number(text::named(command, key).unwrap_or_else(|| panic!("{command:?} names no {key}")))
}

/// Steps; a broken rule leaves the replica as it was and shows its message.
fn step(replica: &mut Replica, event: Event) -> String {
    let mut next = replica.clone();
    match catch_unwind(AssertUnwindSafe(|| next.step(0, event))) {
        Ok(actions) => {
            *replica = next;
            let high_watermark =
                actions.high_watermark.map(|to| format!("high watermark advanced to {to}\n"));
            let ended = actions.leadership_ended.then_some("leadership ended\n");
            format!("{}{}{}", high_watermark.unwrap_or_default(), ended.unwrap_or_default(), state(replica))
        }
        Err(panic) => format!("panic: {}", panic.downcast_ref::<String>().map_or("?", String::as_str)),
    }
}

fn state(replica: &Replica) -> String {
    let role = match replica.role() {
        Role::Unassigned => "unassigned".to_owned(),
        Role::Leader { epoch } => format!("leader at epoch {epoch}"),
        Role::Fenced { reason } => format!("fenced: {reason}"),
    };
    let (hw, flushed, end) = (replica.high_watermark(), replica.flushed_end(), replica.log_end());
    format!("{role}, high watermark {hw} <= flushed {flushed} <= end {end}")
}

fn acks(replica: &Replica, end: Offset) -> String {
    let reached: Vec<&str> = Durability::ALL
        .into_iter()
        .filter(|level| replica.may_ack(end, *level))
        .map(Durability::name)
        .collect();
    let receipt = replica.receipt_for(end).map_or("none", Durability::name);
    format!("may ack [{}], receipt {receipt}", reached.join(" "))
}

/// What a driver may tell a replica: appends grow the log, flushes follow them, leadership renews.
#[derive(Clone, Copy, Debug)]
enum Move {
    Append(u64),
    Flush(u64),
    Lead,
    Fence,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        8 => (1u64..100).prop_map(Move::Append),
        8 => (0u64..150).prop_map(Move::Flush),
        2 => Just(Move::Lead),
        1 => Just(Move::Fence),
    ];
    proptest::collection::vec(one, 0..60)
}

proptest! {
    #[test]
    fn nothing_is_acknowledged_that_a_power_cut_takes(moves in moves(), recovered in 0u64..50) {
        let mut replica = new_replica(1, recovered);
        let mut epoch = 1;
        replica.step(0, Event::BecomeLeader { epoch: LeaderEpoch(epoch), log_end: Offset(recovered) });
        let (mut end, mut flushed, mut fenced) = (recovered, recovered, false);
        for (now_ns, step) in (1..).zip(moves) {
            let before = replica.high_watermark();
            let event = match step {
                Move::Append(records) => {
                    end += if fenced { 0 } else { records };
                    Event::Appended { end: Offset(end) }
                }
                Move::Flush(records) => {
                    flushed = if fenced { flushed } else { end.min(flushed + records) };
                    Event::Flushed { end: Offset(flushed) }
                }
                Move::Lead => {
                    epoch += 1;
                    Event::BecomeLeader { epoch: LeaderEpoch(epoch), log_end: Offset(end) }
                }
                Move::Fence => {
                    fenced = true;
                    Event::Fenced { reason: "planted".to_owned() }
                }
            };
            let actions = replica.step(now_ns, event);
            replica.invariants();
            // Alone in the isr, what is flushed is what everybody flushed.
            prop_assert_eq!(replica.high_watermark(), Offset(flushed));
            prop_assert_eq!(replica.log_end(), Offset(end));
            let advanced = (before < replica.high_watermark()).then_some(replica.high_watermark());
            prop_assert_eq!(actions.high_watermark, advanced);
            for level in [Durability::LeaderFlushed, Durability::Replicated, Durability::IsrFlushed] {
                prop_assert!(replica.may_ack(Offset(flushed), level));
                prop_assert!(!replica.may_ack(Offset(flushed + 1), level));
            }
            prop_assert_eq!(replica.may_ack(Offset(end), Durability::Received), !fenced || flushed == end);
        }
    }

    #[test]
    fn a_level_that_is_reached_includes_those_before_it(appended in 0u64..20, flushed in 0u64..20, asked in 0u64..25) {
        let mut replica = new_replica(1, 0);
        replica.step(0, Event::BecomeLeader { epoch: LeaderEpoch(1), log_end: Offset(0) });
        replica.step(0, Event::Appended { end: Offset(appended) });
        replica.step(0, Event::Flushed { end: Offset(flushed.min(appended)) });
        let receipt = replica.receipt_for(Offset(asked));
        for level in Durability::ALL {
            prop_assert_eq!(replica.may_ack(Offset(asked), level), receipt >= Some(level));
        }
    }
}
