//! Whose request it is: what an answer, or the loss of it, has to be brought back to.

use super::consume::{OffsetsFlight, Subscriber};
use super::produce::ProduceFlight;
use super::{CallId, ProducerId};

#[derive(Debug)]
pub(crate) enum Owner {
    /// The metadata cache.
    Metadata,
    /// A call of the application.
    Call(CallId),
    /// Batches of a producer.
    Produce(ProduceFlight),
    /// The id of a producer.
    Identity(ProducerId),
    /// Where a consumer's partitions begin and end.
    Offsets(OffsetsFlight),
    /// Records for a consumer, for as long as they come.
    Subscription(Subscriber),
    /// Nobody: if a subscription that something was said about is over, its last answer is on its way.
    Adjustment,
}
