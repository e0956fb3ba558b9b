//! Which records a log no longer keeps, and their removal: by age, by size, by command.
//!
//! The log start offset moves first, durably; whole segments below it are removed after. So a reader never meets a
//! hole, and a crash leaves at most files that the next start removes.
//!
//! Segments are judged by the latest timestamp in them, as Kafka does: a record from the future keeps its segment, and
//! nothing is removed while something before it is kept.

use std::rc::Rc;

use corrente_protocol::ids::Offset;
use corrente_runtime::file;

use crate::error::{AtPath, DeleteRecordsError, PathError};
use crate::log::{LogInner, State};
use crate::log_start;
use crate::policy::LogPolicy;
use crate::position::BLOCK_BYTES;
use crate::segment::{FIRST_EXTENT, Segment, index_name};
use crate::writer;

/// What retention asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expired {
    /// The log should start here.
    pub(crate) log_start_offset: Offset,
    /// All of the active segment is too old as well: it should be sealed, to be removed next time.
    pub(crate) seal_active: bool,
}

/// What `policy` no longer keeps at this time.
pub(crate) fn expired(state: &State, policy: &LogPolicy, now_ms: i64, settled_end: Offset) -> Expired {
    let mut expired = Expired { log_start_offset: state.log_start_offset, seal_active: false };
    if !policy.delete {
        return expired;
    }
    let mut size = state.sealed_bytes + state.tail.position.0;
    let mut segments = state.segments.values().peekable();
    while let Some(segment) = segments.next() {
        let too_old = is_too_old(segment, policy, now_ms);
        let Some(next) = segments.peek() else {
            expired.seal_active = too_old && state.tail.position > FIRST_EXTENT;
            break;
        };
        let after = size - segment.end_position.0;
        let too_much = policy.retention_bytes.is_some_and(|kept| after >= kept);
        if !(too_old || too_much) || next.base_offset > settled_end {
            break;
        }
        size = after;
        expired.log_start_offset = next.base_offset.max(state.log_start_offset);
    }
    expired
}

fn is_too_old(segment: &Segment, policy: &LogPolicy, now_ms: i64) -> bool {
    let Some(retention_ms) = policy.retention_ms else { return false };
    // Without a timestamp of the records' own, the segment's counts.
    let latest_ms = if segment.max_timestamp_ms < 0 { segment.created_ms } else { segment.max_timestamp_ms };
    let age = now_ms.saturating_sub(latest_ms);
    u64::try_from(age).is_ok_and(|age| age > retention_ms)
}

/// Removes what the log's policy no longer keeps.
pub(crate) async fn enforce(log: &Rc<LogInner>, now_ms: i64) -> Result<(), PathError> {
    let _turn = log.upkeep.acquire(1).await;
    if !log.takes_removals() {
        return Ok(());
    }
    let wanted = expired(&log.state.borrow(), &log.policy.get(), now_ms, log.settled_end.get());
    if wanted.seal_active && log.takes_upkeep() && log.drive.take(BLOCK_BYTES).await.is_ok() {
        writer::seal_active(log);
    }
    if wanted.log_start_offset > log.state.borrow().log_start_offset {
        tracing::debug!(log = %log.id, to = %wanted.log_start_offset, "retention moves the log start");
        move_log_start(log, wanted.log_start_offset).await?;
    }
    remove_expired_segments(log).await
}

/// Deletes every record below `offset`; says where the log starts now, durably. Not cancel-safe: dropped, the log may
/// start at either offset.
pub(crate) async fn delete_before(log: &Rc<LogInner>, offset: Offset) -> Result<Offset, DeleteRecordsError> {
    let _turn = log.upkeep.acquire(1).await;
    if !log.takes_removals() {
        return Err(DeleteRecordsError::Unavailable { reason: log.why_no_upkeep() });
    }
    let (start, end) = (log.state.borrow().log_start_offset, log.settled_end.get());
    if offset > end {
        return Err(DeleteRecordsError::OutOfRange { asked: offset, start, end });
    }
    if offset > start {
        move_log_start(log, offset).await?;
        remove_expired_segments(log).await?;
    }
    Ok(log.state.borrow().log_start_offset)
}

async fn move_log_start(log: &Rc<LogInner>, to: Offset) -> Result<(), PathError> {
    log.shard.producers.cover(log.id, to).await;
    log_start::write(&log.dir, log.id, to).await?;
    {
        let mut state = log.state.borrow_mut();
        state.log_start_offset = to;
        state.invariants();
    }
    log.shard.checkpointer.note(&log.shard, log.checkpoint_entry(), 0);
    Ok(())
}

/// Removes the segments of which nothing is kept. The caller holds the turn for upkeep.
async fn remove_expired_segments(log: &Rc<LogInner>) -> Result<(), PathError> {
    while let Some(segment) = take_first_expired(log) {
        log.shard.read_ahead.forget_segment(log.id, segment.base_offset);
        remove_segment_files(log, &segment).await?;
    }
    Ok(())
}

/// Takes the first segment out of the log if nothing of it is kept; never the active one.
fn take_first_expired(log: &LogInner) -> Option<Segment> {
    let mut state = log.state.borrow_mut();
    let next = *state.segments.keys().nth(1)?;
    if next > state.log_start_offset {
        return None;
    }
    let (_, segment) = state.segments.pop_first()?;
    state.sealed_bytes -= segment.end_position.0;
    state.invariants();
    Some(segment)
}

/// Removes the files of a segment that is no longer one of the log's.
pub(crate) async fn remove_segment_files(log: &LogInner, segment: &Segment) -> Result<(), PathError> {
    // Only a help, and often not there.
    let _ = file::remove_file(&log.dir.join(index_name(segment.base_offset))).await;
    let path = log.segment_path(segment.base_offset);
    let len = segment.end_position.block_end().0;
    if !log.drive.take_if_plenty(0) {
        return file::remove_file(&path).await.at(&path);
    }
    log.shard.pool.retire(&log.drive, &path, len).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use corrente_protocol::ids::LeaderEpoch;
    use corrente_runtime::sim::{World, WorldConfig};
    use proptest::prelude::*;

    use super::*;
    use crate::log::Tail;
    use crate::position::{FilePosition, HeaderHash, Nonce};

    const MIB: u64 = 1 << 20;

    /// A log of segments with ten offsets each, of these sizes and latest timestamps; the last one is active.
    fn state(segments: &[(u64, i64)]) -> State {
        let segment = |(n, (size, latest)): (u64, &(u64, i64))| {
            let segment = Segment {
                base_offset: Offset(n * 10),
                nonce: Nonce(n),
                header_hash: HeaderHash(n),
                previous: None,
                rewritten: None,
                epoch_before: LeaderEpoch(0),
                created_ms: 0,
                end_position: FilePosition(*size),
                max_timestamp_ms: *latest,
            };
            (segment.base_offset, segment)
        };
        let known: BTreeMap<Offset, Segment> = (0..).zip(segments).map(segment).collect();
        let active = *known.values().next_back().expect("there is one");
        let tail = Tail {
            flushed: Offset(active.base_offset.0 + 10),
            epoch: LeaderEpoch(0),
            segment: active.base_offset,
            position: active.end_position,
            last_extent: FIRST_EXTENT,
            last_hash: HeaderHash(0),
        };
        let world = World::new(1, WorldConfig::default());
        let node = world.node("north", [10, 0, 0, 1]);
        let made = world.run(&node, std::time::Duration::from_secs(1), move || async move {
            State::new(Offset::ZERO, known, tail, Bytes::new(), true)
        });
        made.expect("made at once")
    }

    fn policy(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> LogPolicy {
        LogPolicy { delete: true, retention_ms, retention_bytes, ..LogPolicy::keep_all(MIB) }
    }

    #[test]
    fn old_segments_go_and_the_active_one_is_sealed_first() {
        let state = state(&[(MIB, 100), (MIB, 200), (MIB, 300)]);
        let at = |now, settled| expired(&state, &policy(Some(50), None), now, Offset(settled));
        let kept = |offset, seal_active| Expired { log_start_offset: Offset(offset), seal_active };
        assert_eq!(at(150, 30), kept(0, false));
        assert_eq!(at(151, 30), kept(10, false));
        assert_eq!(at(251, 30), kept(20, false));
        assert_eq!(at(351, 30), kept(20, true));
        assert_eq!(at(351, 19), kept(10, false));
        let without_delete = LogPolicy { delete: false, ..policy(Some(50), None) };
        assert_eq!(expired(&state, &without_delete, 9999, Offset(30)), kept(0, false));
    }

    #[test]
    fn a_record_from_the_future_keeps_what_comes_after_it() {
        let state = state(&[(MIB, 100), (MIB, 9000), (MIB, 200), (MIB, 300)]);
        let wanted = expired(&state, &policy(Some(50), None), 500, Offset(40));
        assert_eq!(wanted, Expired { log_start_offset: Offset(10), seal_active: false });
    }

    #[test]
    fn a_large_log_keeps_at_least_what_it_should() {
        let state = state(&[(3 * MIB, 0), (2 * MIB, 0), (MIB, 0)]);
        let start = |bytes| expired(&state, &policy(None, Some(bytes)), 0, Offset(30)).log_start_offset.0;
        assert_eq!(
            [start(6 * MIB), start(3 * MIB + 1), start(3 * MIB), start(MIB), start(0)],
            [0, 0, 10, 20, 20]
        );
    }

    proptest! {
        #[test]
        fn nothing_is_removed_that_should_be_kept(
            segments in proptest::collection::vec((4096..MIB, 0..1000_i64), 1..8),
            retention_ms in 0..1000_u64, retention_bytes in 0..4 * MIB, now in 0..2000_i64,
        ) {
            let state = state(&segments);
            let wanted = expired(&state, &policy(Some(retention_ms), Some(retention_bytes)), now, Offset(1000));
            let gone = usize::try_from(wanted.log_start_offset.0 / 10).unwrap();
            let mut left: u64 = segments.iter().map(|(size, _)| size).sum();
            for (size, latest) in &segments[..gone] {
                left -= size;
                let too_old = now - latest > i64::try_from(retention_ms).unwrap();
                prop_assert!(too_old || left >= retention_bytes);
            }
        }
    }
}
