//! Gives producer ids to those who ask on one shard, out of blocks that the controller grants to it.

use std::cell::RefCell;
use std::ops::Range;

use corrente_runtime::sync::Budget;

use crate::controller::ControllerHandle;
use crate::error::Refusal;

pub struct ProducerIds {
    /// Granted to this shard and not given out yet.
    block: RefCell<Range<u64>>,
    /// Held while a block is asked for: those who find none wait for the same one.
    asking: Budget,
}

impl Default for ProducerIds {
    fn default() -> ProducerIds {
        ProducerIds { block: RefCell::new(0..0), asking: Budget::new(1) }
    }
}

impl ProducerIds {
    /// An id that nobody was ever given. Dropped before it is ready, ids may be lost, never given twice.
    pub async fn take(&self, controller: &ControllerHandle) -> Result<i64, Refusal> {
        let _turn = self.asking.acquire(1).await;
        if self.block.borrow().is_empty() {
            let block = controller.grant_producer_ids().await?;
            self.block.replace(block);
        }
        let id = self.block.borrow_mut().next().expect("a block holds ids");
        Ok(i64::try_from(id).expect("the controller grants no more"))
    }
}
