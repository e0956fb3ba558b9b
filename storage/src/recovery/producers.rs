//! Makes a log's producer state anew: from what was written of it, and the batches behind that.

use corrente_protocol::record_batch::{RecordBatchHeader, headers};
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::timer;

use crate::error::ReadError;
use crate::log::{Appended, Log};
use crate::producer_snapshot::LogProducers;
use crate::producer_state::ProducerState;

/// Bytes read at a time.
const READ: usize = 1024 * 1024;

/// Gives an open log its producer state. Without anything written, the log is read from its start: it is a new one,
/// or what was written is damaged.
///
/// Where batches are missing whose producers nobody wrote down, or are damaged, every producer known until then may
/// have gone on in them: it is forgotten, for one that is not known may go on with any sequence, and the others may
/// not. A disk that does not answer is another matter: the log stays closed rather than append twice.
pub(crate) async fn rebuild(log: &Log, written: Option<&LogProducers>) -> Result<(), ReadError> {
    let end = log.flushed_offset();
    // A log that ends before it is not the one it speaks of: damaged since, or mended.
    let LogProducers { end_offset: known_to, mut state } =
        written.filter(|written| written.end_offset <= end).cloned().unwrap_or_default();
    let now_ms = timer::wall_clock_ms();
    let mut next = known_to;
    let mut from = known_to.max(log.log_start_offset());
    while from < end {
        let chunks = match log.read(from, end, READ).await {
            Ok(chunks) if chunks.is_empty() => break,
            Ok(chunks) => chunks,
            Err(error @ ReadError::Damaged { end: readable, .. }) => {
                tracing::warn!(log = %log.id(), %error, "batches of before that are sent again are not told");
                from = readable.max(from.saturating_add(1));
                continue;
            }
            Err(error) => return Err(error),
        };
        for (_, header) in chunks.iter().flat_map(|chunk| headers(chunk)).map_while(Result::ok) {
            if header.base_offset > next || stands_for_lost(&header) {
                state = ProducerState::default();
            }
            if header.base_offset >= known_to {
                state.note(&header, place_of(&header), now_ms);
            }
            next = header.end_offset();
        }
        from = next.max(from.saturating_add(1));
        yield_if_needed().await;
    }
    if next < end {
        state = ProducerState::default();
    }
    log.0.state.borrow_mut().producers = state;
    Ok(())
}

/// A repair puts an empty batch where records were lost. Compaction leaves such a one only where nobody's were.
fn stands_for_lost(header: &RecordBatchHeader) -> bool {
    header.record_count == 0 && header.producer_id < 0
}

fn place_of(header: &RecordBatchHeader) -> Appended {
    Appended {
        base_offset: header.base_offset,
        end_offset: header.end_offset(),
        append_time_ms: header.attributes.is_append_time().then_some(header.max_timestamp_ms),
    }
}
