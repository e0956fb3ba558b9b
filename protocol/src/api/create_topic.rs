//! Create a topic.

use super::{ApiKey, Message, Request, put_configs, put_message, read_configs, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::ids::TopicId;
use crate::wire::{DecodeError, Reader, Writer};

/// The topic to create.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopicRequest {
    /// Its name; the broker judges it.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each; 0 for the broker's default.
    pub replication_factor: u16,
    /// Keys and values of its configuration; what is not named keeps its default.
    pub configs: Vec<(String, String)>,
    /// Only say whether it could be created.
    pub validate_only: bool,
}

/// Whether it was created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreateTopicResponse {
    /// Why not, or [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about the error.
    pub message: Option<String>,
    /// The id it was given; [`TopicId::NIL`] with an error or when it was only validated.
    pub id: TopicId,
}

impl Request for CreateTopicRequest {
    const API: ApiKey = ApiKey::CreateTopic;
    type Response = CreateTopicResponse;
}

impl Message for CreateTopicRequest {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_str(&self.name);
        writer.put_u32(self.partitions);
        writer.put_u16(self.replication_factor);
        put_configs(&self.configs, writer);
        writer.put_bool(self.validate_only);
        writer.put_no_tags();
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<CreateTopicRequest, DecodeError> {
        let request = CreateTopicRequest {
            name: reader.string()?,
            partitions: reader.u32()?,
            replication_factor: reader.u16()?,
            configs: read_configs(reader)?,
            validate_only: reader.bool()?,
        };
        reader.tagged(|_, _| Ok(false))?;
        Ok(request)
    }
}

impl Message for CreateTopicResponse {
    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        writer.put_uuid(self.id.0);
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<CreateTopicResponse, DecodeError> {
        Ok(CreateTopicResponse {
            error: read_error(reader)?,
            id: TopicId(reader.uuid()?),
            message: read_message(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{any_configs, any_error, any_message, any_text, any_topic, assert_survives};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn request_survives(name in any_text(), partitions: u32, replication_factor: u16, configs in any_configs(),
            validate_only: bool)
        {
            assert_survives(&CreateTopicRequest { name, partitions, replication_factor, configs, validate_only });
        }

        #[test]
        fn response_survives(error in any_error(), message in any_message(), id in any_topic()) {
            assert_survives(&CreateTopicResponse { error, message, id });
        }
    }
}
