//! Delete a topic and all its records.

use super::{ApiKey, Message, Request, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Writer};

/// The topic to delete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteTopicRequest {
    /// Its name.
    pub name: String,
}

/// Whether it was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteTopicResponse {
    /// Why not, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
}

impl Request for DeleteTopicRequest {
    const API: ApiKey = ApiKey::DeleteTopic;
    type Response = DeleteTopicResponse;
}

impl Message for DeleteTopicRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_str(&self.name);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<DeleteTopicRequest, DecodeError> {
        let request = DeleteTopicRequest { name: reader.string()? };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl Message for DeleteTopicResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<DeleteTopicResponse, DecodeError> {
        Ok(DeleteTopicResponse { error: read_error(reader)?, message: read_message(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_error, any_message, any_text, assert_survives};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn request_survives(name in any_text()) {
            assert_survives(&DeleteTopicRequest { name });
        }

        #[test]
        fn response_survives(error in any_error(), message in any_message()) {
            assert_survives(&DeleteTopicResponse { error, message });
        }
    }
}
