//! Gives producer ids to those who ask on one shard, out of blocks that the controller grants to it.

use std::cell::Cell;

use corrente_runtime::sync::Budget;

use crate::controller::ControllerHandle;
use crate::error::Refusal;

/// Ids granted to this shard and not given out yet: `next..end`.
pub struct ProducerIds {
    next: Cell<u64>,
    end: Cell<u64>,
    /// Held while a block is asked for: those who find none wait for the same one.
    asking: Budget,
}

impl Default for ProducerIds {
    fn default() -> ProducerIds {
        ProducerIds { next: Cell::new(0), end: Cell::new(0), asking: Budget::new(1) }
    }
}

impl ProducerIds {
    /// An id that nobody was ever given. Dropped before it is ready, ids may be lost, never given twice.
    pub async fn take(&self, controller: &ControllerHandle) -> Result<i64, Refusal> {
        let _turn = self.asking.acquire(1).await;
        if self.next.get() == self.end.get() {
            let block = controller.grant_producer_ids().await?;
            self.next.set(block.start);
            self.end.set(block.end);
        }
        let id = self.next.get();
        self.next.set(id + 1);
        Ok(i64::try_from(id).expect("the controller grants no more"))
    }
}
