//! Where a broker spent the time of one request.

use std::time::Duration;

use crate::wire::{DecodeError, Reader, Writer};

/// The stages of a produce, one after the other; together they are the time from the request's header to its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StageTimes {
    /// From the request's header until its records were in the leader's log in memory: the rest of the body, room,
    /// checks, the turn.
    pub queue: Duration,
    /// From there until they were as durable as asked for on the leader.
    pub disk: Duration,
    /// From there until the other in-sync replicas had them as well.
    pub replication: Duration,
    /// From there until the answer was made.
    pub send: Duration,
}

impl StageTimes {
    pub(super) fn encode(&self, writer: &mut Writer) {
        for stage in [self.queue, self.disk, self.replication, self.send] {
            writer.put_u64(u64::try_from(stage.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn read(reader: &mut Reader) -> Result<StageTimes, DecodeError> {
        let mut stage = || reader.u64().map(Duration::from_nanos);
        Ok(StageTimes { queue: stage()?, disk: stage()?, replication: stage()?, send: stage()? })
    }
}
