//! An id for an idempotent or a transactional producer (KIP-98; KIP-360 for one that it has already).

use super::{ApiKey, DecodeError, Fields, Message};

/// Stands where there is no id and no epoch.
const NONE: i16 = -1;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitProducerIdRequest {
    /// Of a transactional producer.
    pub transactional_id: Option<String>,
    /// How long its transactions may take, in ms.
    pub transaction_timeout_ms: i32,
    /// The id that it has, or -1; from version 3 on.
    pub producer_id: i64,
    /// The epoch that it has, or -1; from version 3 on.
    pub producer_epoch: i16,
}

/// Its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitProducerIdResponse {
    /// How long the broker held the answer back, in ms.
    pub throttle_ms: i32,
    /// 0, or why there is none.
    pub error: i16,
    /// The id, or -1.
    pub producer_id: i64,
    /// The epoch to begin with, or -1.
    pub producer_epoch: i16,
}

impl Default for InitProducerIdRequest {
    fn default() -> InitProducerIdRequest {
        let (producer_id, producer_epoch) = (NONE.into(), NONE);
        InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 0,
            producer_id,
            producer_epoch,
        }
    }
}

impl Default for InitProducerIdResponse {
    fn default() -> InitProducerIdResponse {
        let (producer_id, producer_epoch) = (NONE.into(), NONE);
        InitProducerIdResponse { throttle_ms: 0, error: 0, producer_id, producer_epoch }
    }
}

impl Message for InitProducerIdRequest {
    const API: ApiKey = ApiKey::InitProducerId;

    fn walk<F: Fields>(&mut self, version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.nullable_string(&mut self.transactional_id)?;
        fields.i32(&mut self.transaction_timeout_ms)?;
        if version >= 3 {
            fields.i64(&mut self.producer_id)?;
            fields.i16(&mut self.producer_epoch)?;
        }
        fields.tags()
    }
}

impl Message for InitProducerIdResponse {
    const API: ApiKey = ApiKey::InitProducerId;

    fn walk<F: Fields>(&mut self, _version: i16, fields: &mut F) -> Result<(), DecodeError> {
        fields.i32(&mut self.throttle_ms)?;
        fields.i16(&mut self.error)?;
        fields.i64(&mut self.producer_id)?;
        fields.i16(&mut self.producer_epoch)?;
        fields.tags()
    }
}
