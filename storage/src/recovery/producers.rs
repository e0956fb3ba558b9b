//! Makes a log's producer state anew: from what was written of it, and the batches behind that.

use corrente_protocol::record_batch::{RecordBatchHeader, headers};
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::timer;

use crate::log::{Appended, Log};
use crate::producer_snapshot::LogProducers;
use crate::producer_state::ProducerState;

/// Bytes read at a time.
const READ: usize = 1024 * 1024;

/// Gives an open log its producer state. Without anything written, the log is read from its start: it is a new one,
/// or what was written is damaged.
pub(crate) async fn rebuild(log: &Log, written: Option<&LogProducers>) {
    let end = log.flushed_offset();
    // A log that ends before it is not the one it speaks of: damaged since, or mended.
    let mut known = written.filter(|written| written.end_offset <= end).cloned().unwrap_or_default();
    let mut next = known.end_offset.max(log.log_start_offset());
    let now_ms = timer::wall_clock_ms();
    while next < end {
        let chunks = match log.read(next, end, READ).await {
            Ok(chunks) if chunks.is_empty() => break,
            Ok(chunks) => chunks,
            Err(error) => {
                // Producers that are not known may go on with any sequence.
                tracing::warn!(log = %log.id(), %error, "batches that are sent again are not told");
                known.state = ProducerState::default();
                break;
            }
        };
        for (_, header) in chunks.iter().flat_map(|chunk| headers(chunk)).map_while(Result::ok) {
            if header.base_offset >= known.end_offset {
                known.state.note(&header, place_of(&header), now_ms);
            }
            next = header.end_offset();
        }
        yield_if_needed().await;
    }
    log.0.state.borrow_mut().producers = known.state;
}

fn place_of(header: &RecordBatchHeader) -> Appended {
    Appended {
        base_offset: header.base_offset,
        end_offset: header.end_offset(),
        append_time_ms: header.attributes.is_append_time().then_some(header.max_timestamp_ms),
    }
}
