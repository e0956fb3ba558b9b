//! The answer to a request that was refused as a whole: unknown api, undecodable body, no room, going down.
//!
//! It stands in place of the api's own response when the frame header carries [`crate::frame::FLAG_ERROR`], and has the
//! same bytes in every api and version.

use super::{Message, put_message, read_error, read_message};
use crate::error_code::ErrorCode;
use crate::wire::{DecodeError, Reader, Writer};

/// Why a whole request was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ErrorResponse {
    /// The reason; never [`ErrorCode::None`].
    pub error: ErrorCode,
    /// More about it.
    pub message: Option<String>,
}

impl Message for ErrorResponse {
    // The bytes are the same whatever version the request was in.
    const NEWEST_VERSION: u16 = u16::MAX;

    fn encode(&self, _version: u16, writer: &mut Writer) {
        writer.put_u16(self.error.code());
        put_message(self.message.as_deref(), writer);
    }

    fn read(_version: u16, reader: &mut Reader) -> Result<ErrorResponse, DecodeError> {
        Ok(ErrorResponse { error: read_error(reader)?, message: read_message(reader)? })
    }
}
