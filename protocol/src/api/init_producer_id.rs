//! An id for an idempotent producer: with it, an epoch and sequences its batches are appended once.

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Writer};

/// Asks for an id that nobody has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitProducerIdRequest;

/// The id, or why there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InitProducerIdResponse {
    /// Why not, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// The id; -1 with an error.
    pub producer_id: i64,
    /// The epoch to begin with; -1 with an error.
    pub producer_epoch: i16,
}

impl Request for InitProducerIdRequest {
    const API: ApiKey = ApiKey::InitProducerId;
    type Response = InitProducerIdResponse;
}

impl Message for InitProducerIdRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<InitProducerIdRequest, DecodeError> {
        reader.tagged(|_, _| Ok(false))?;
        Ok(InitProducerIdRequest)
    }
}

impl Message for InitProducerIdResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        writer.put_i64(self.producer_id);
        writer.put_u16(self.producer_epoch.cast_unsigned());
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<InitProducerIdResponse, DecodeError> {
        Ok(InitProducerIdResponse {
            error: read_error(reader)?,
            producer_id: reader.i64()?,
            producer_epoch: reader.u16()?.cast_signed(),
            message: read_message(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, assert_survives};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_survive(
            error in any_error(),
            message in any_message(),
            producer_id in any::<i64>(),
            producer_epoch in any::<i16>(),
        ) {
            assert_survives(&InitProducerIdRequest);
            assert_survives(&InitProducerIdResponse { error, message, producer_id, producer_epoch });
        }
    }
}
