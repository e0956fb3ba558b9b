//! Change a topic's configuration.

use super::{ApiKey, Message, Request, put_configs, put_message, read_configs, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Writer};

/// The topic and what to change. All changes happen or none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterTopicRequest {
    /// Its name.
    pub name: String,
    /// Keys to set and their values.
    pub set: Vec<(String, String)>,
    /// Keys to return to their defaults.
    pub unset: Vec<String>,
    /// Only say whether it could be done.
    pub validate_only: bool,
}

/// Whether it was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AlterTopicResponse {
    /// Why not, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
}

impl Request for AlterTopicRequest {
    const API: ApiKey = ApiKey::AlterTopic;
    type Response = AlterTopicResponse;
}

impl Message for AlterTopicRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_str(&self.name);
        put_configs(&self.set, writer);
        writer.put_list(&self.unset, |w, key| w.put_str(key));
        writer.put_bool(self.validate_only);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<AlterTopicRequest, DecodeError> {
        let request = AlterTopicRequest {
            name: reader.string()?,
            set: read_configs(reader)?,
            unset: reader.list(4, |r| r.string())?,
            validate_only: reader.bool()?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl Message for AlterTopicResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<AlterTopicResponse, DecodeError> {
        Ok(AlterTopicResponse { error: read_error(reader)?, message: read_message(reader)? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_configs, any_error, any_message, any_text, assert_survives};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn request_survives(
            name in any_text(),
            set in any_configs(),
            unset in vec(any_text(), 0..3),
            validate_only: bool,
        ) {
            assert_survives(&AlterTopicRequest { name, set, unset, validate_only });
        }

        #[test]
        fn response_survives(error in any_error(), message in any_message()) {
            assert_survives(&AlterTopicResponse { error, message });
        }
    }
}
