//! Give a subscription more credit, or end it.

use super::{ApiKey, Message, Request};
use crate::wire::{DecodeError, Reader, Writer};

/// What is to become of a subscription of the same connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdjustSubscriptionRequest {
    /// The correlation id of the request that opened it.
    pub subscription: u64,
    /// Bytes of batches that may be sent on top of what is left of the credit.
    pub credit: u32,
    /// Nothing more is wanted: the last answer of the subscription leaves soon, if it has not yet.
    pub ends: bool,
}

/// Whether there was anything to adjust.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdjustSubscriptionResponse {
    /// False for a subscription that has ended, or never was: its last answer says why.
    pub found: bool,
}

impl Request for AdjustSubscriptionRequest {
    const API: ApiKey = ApiKey::AdjustSubscription;
    type Response = AdjustSubscriptionResponse;
}

impl Message for AdjustSubscriptionRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u64(self.subscription);
        writer.put_u32(self.credit);
        writer.put_bool(self.ends);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<AdjustSubscriptionRequest, DecodeError> {
        let request = AdjustSubscriptionRequest {
            subscription: reader.u64()?,
            credit: reader.u32()?,
            ends: reader.bool()?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl Message for AdjustSubscriptionResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_bool(self.found);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<AdjustSubscriptionResponse, DecodeError> {
        let response = AdjustSubscriptionResponse { found: reader.bool()? };
        reader.tagged(|_, _| Ok(false))?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::assert_survives;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn request_and_response_survive(subscription: u64, credit: u32, ends: bool, found: bool) {
            assert_survives(&AdjustSubscriptionRequest { subscription, credit, ends });
            assert_survives(&AdjustSubscriptionResponse { found });
        }
    }
}
