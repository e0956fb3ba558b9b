//! Give a topic more partitions. There is no way back: keys map to other partitions from then on.

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Writer};

/// The topic and its new number of partitions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddPartitionsRequest {
    /// Its name.
    pub name: String,
    /// How many partitions it is to have in all.
    pub total: u32,
    /// Only say whether it could be done.
    pub validate_only: bool,
}

/// Whether it was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddPartitionsResponse {
    /// Why not, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
}

impl Request for AddPartitionsRequest {
    const API: ApiKey = ApiKey::AddPartitions;
    type Response = AddPartitionsResponse;
}

impl Message for AddPartitionsRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_str(&self.name);
        writer.put_u32(self.total);
        writer.put_bool(self.validate_only);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<AddPartitionsRequest, DecodeError> {
        let request = AddPartitionsRequest {
            name: reader.string()?,
            total: reader.u32()?,
            validate_only: reader.bool()?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl Message for AddPartitionsResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<AddPartitionsResponse, DecodeError> {
        Ok(AddPartitionsResponse { error: read_error(reader)?, message: read_message(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_text, assert_survives};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn request_survives(name in any_text(), total: u32, validate_only: bool) {
            assert_survives(&AddPartitionsRequest { name, total, validate_only });
        }

        #[test]
        fn response_survives(error in any_error(), message in any_message()) {
            assert_survives(&AddPartitionsResponse { error, message });
        }
    }
}
