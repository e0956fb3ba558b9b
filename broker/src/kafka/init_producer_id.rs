//! Init producer id: a fresh one for each who asks. There are no transactions yet.

use std::rc::Rc;

use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

use crate::shard::Shard;

/// A producer that has an id already gets another: without transactions it wants no more than to begin anew, and an
/// id that nobody has used begins at epoch 0.
pub async fn answer(shard: Rc<Shard>, asked: InitProducerIdRequest) -> InitProducerIdResponse {
    if let Some(id) = asked.transactional_id {
        // One of the few answers after which clients give up rather than ask again for ever.
        tracing::debug!(id, "a transactional producer was refused: there are no transactions yet");
        return refused(KafkaError::TransactionalIdAuthorizationFailed);
    }
    match shard.new_producer_id().await {
        Ok(producer_id) => {
            InitProducerIdResponse { producer_id, producer_epoch: 0, ..InitProducerIdResponse::default() }
        }
        Err(refusal) => {
            tracing::warn!(%refusal, "a producer got no id");
            // Asked again here: after other errors Java looks for a coordinator, without a key (KAFKA-14417).
            refused(KafkaError::CoordinatorLoadInProgress)
        }
    }
}

fn refused(error: KafkaError) -> InitProducerIdResponse {
    InitProducerIdResponse { error: error.code(), ..InitProducerIdResponse::default() }
}
