//! Which part of a log is due for compaction.
//!
//! Pure. The clean part is the segments from the log's beginning that compaction has made; all up to the active segment
//! behind them is dirty. What is clean is known from the segments themselves: nothing else has to be kept in step.

use corrente_protocol::ids::Offset;

use crate::log::State;
use crate::policy::CompactionPolicy;
use crate::segment::{RewrittenBy, Segment};

/// What one compaction should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    /// Where the dirty part begins.
    pub(crate) dirty_start: Offset,
    /// Where what may be compacted ends: at the beginning of a segment.
    pub(crate) end: Offset,
    /// The dirty part, in millionths of all that would be compacted.
    pub(crate) dirty_ppm: u64,
}

/// What is due at this time, if anything is.
pub(crate) fn due(state: &State, policy: &CompactionPolicy, now_ms: i64, settled_end: Offset) -> Option<Due> {
    let sealed: Vec<&Segment> =
        state.segments.range(..state.tail.segment).map(|(_, segment)| segment).collect();
    let clean = sealed.iter().take_while(|segment| is_clean(segment)).count();
    let dirty_start = ends_at(state, &sealed, clean);
    let old_enough = |segment: &&&Segment| {
        policy.min_lag_ms == 0 || is_older(segment.max_timestamp_ms, now_ms, policy.min_lag_ms)
    };
    let eligible = sealed[clean..].iter().take_while(old_enough).count();
    let settled = (1..=eligible).rev().find(|count| ends_at(state, &sealed, clean + count) <= settled_end)?;
    let bytes = |segments: &[&Segment]| segments.iter().map(|segment| segment.end_position.0).sum::<u64>();
    let (clean_bytes, dirty_bytes) = (bytes(&sealed[..clean]), bytes(&sealed[clean..clean + settled]));
    let dirty_ppm = dirty_bytes.saturating_mul(1_000_000) / (clean_bytes + dirty_bytes).max(1);
    let overdue = is_older(sealed[clean].created_ms, now_ms, policy.max_lag_ms);
    let worth_it = dirty_ppm >= u64::from(policy.dirty_ratio_ppm);
    let end = ends_at(state, &sealed, clean + settled);
    (worth_it || overdue).then_some(Due { dirty_start, end, dirty_ppm })
}

/// Where the first `count` segments end.
fn ends_at(state: &State, sealed: &[&Segment], count: usize) -> Offset {
    sealed.get(count).map_or(state.tail.segment, |next| next.base_offset)
}

fn is_clean(segment: &Segment) -> bool {
    segment.rewritten.is_some_and(|rewritten| rewritten.by == RewrittenBy::Compaction)
}

fn is_older(timestamp_ms: i64, now_ms: i64, age_ms: u64) -> bool {
    u64::try_from(now_ms.saturating_sub(timestamp_ms)).is_ok_and(|age| age >= age_ms)
}

/// Segments that become one: they follow each other, and together are no larger than one should be.
pub(crate) fn groups(segments: &[Segment], segment_bytes: u64) -> Vec<Vec<Segment>> {
    let mut groups: Vec<Vec<Segment>> = Vec::new();
    let mut size = 0;
    for segment in segments {
        size += segment.end_position.0;
        match groups.last_mut().filter(|_| size <= segment_bytes) {
            Some(group) => group.push(*segment),
            None => {
                groups.push(vec![*segment]);
                size = segment.end_position.0;
            }
        }
    }
    groups
}
