//! Init producer id: a fresh one for each who asks.

use std::rc::Rc;

use corrente_protocol::api::{InitProducerIdRequest, InitProducerIdResponse};
use corrente_protocol::error_code::ErrorCode;

use crate::shard::Shard;

/// An id that nobody has, at epoch 0.
pub async fn answer(shard: Rc<Shard>, _: InitProducerIdRequest) -> InitProducerIdResponse {
    match shard.new_producer_id().await {
        Ok(producer_id) => {
            InitProducerIdResponse { error: ErrorCode::None, message: None, producer_id, producer_epoch: 0 }
        }
        Err(refusal) => InitProducerIdResponse {
            error: refusal.code,
            message: Some(refusal.message),
            producer_id: -1,
            producer_epoch: -1,
        },
    }
}
