//! Whose request it is: what an answer, or the loss of it, has to be brought back to.

use super::CallId;
use super::fetch::{FetchFlight, OffsetsFlight};
use super::produce::ProduceFlight;

#[derive(Debug)]
pub(crate) enum Owner {
    /// The metadata cache.
    Metadata,
    /// A call of the application.
    Call(CallId),
    /// Batches of a producer.
    Produce(ProduceFlight),
    /// Where a consumer's partitions begin and end.
    Offsets(OffsetsFlight),
    /// Records for a consumer.
    Fetch(FetchFlight),
}
