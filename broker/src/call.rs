//! One request under way: where it came from and how it is answered.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corrente_protocol::api::{ErrorResponse, Message};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{
    Durability, FLAG_ERROR, FLAG_MORE, RequestHeader, ResponseHeader, response_frame,
};
use corrente_runtime::sync::Permit;
use corrente_runtime::timer::Instant;

use crate::connection::Connection;

/// A request under way; it gets one last answer, or none when its connection is gone.
pub struct Call {
    /// What was asked.
    pub header: RequestHeader,
    /// When its header was read.
    pub received: Instant,
    /// Where it came from.
    pub connection: Rc<Connection>,
    /// Its place among the connection's requests under way.
    _turn: Permit,
}

impl Call {
    /// A request that was read from `connection` at `received`.
    pub fn new(header: RequestHeader, received: Instant, connection: Rc<Connection>, turn: Permit) -> Call {
        Call { header, received, connection, _turn: turn }
    }

    /// Whether the deadline that the client set has passed.
    pub fn is_late(&self) -> bool {
        let deadline = Duration::from_millis(u64::from(self.header.deadline_ms));
        !deadline.is_zero() && self.received.elapsed() > deadline
    }

    /// Waits while the peer has too many answers to take.
    pub async fn room(&self) {
        self.connection.room().await;
    }

    /// Answers. `memory` is what the payload pins until it is sent.
    pub async fn answer<M: Message>(self, response: &M, memory: impl IntoIterator<Item = Permit>) {
        self.answer_with_receipt(response, Durability::Received, memory).await;
    }

    /// Answers, and will answer again. Leaves with what else leaves soon.
    pub fn answer_and_go_on<M: Message>(&self, response: &M, memory: impl IntoIterator<Item = Permit>) {
        self.connection.respond_soon(self.frame(response, Durability::Received, FLAG_MORE), memory);
    }

    /// Answers and states the durability that was reached.
    pub async fn answer_with_receipt<M: Message>(
        self,
        response: &M,
        receipt: Durability,
        memory: impl IntoIterator<Item = Permit>,
    ) {
        let frame = self.frame(response, receipt, 0);
        self.connection.respond(frame, memory).await;
    }

    /// The same for who cannot wait.
    pub fn answer_soon<M: Message>(self, response: &M, receipt: Durability) {
        self.connection.respond_soon(self.frame(response, receipt, 0), None);
    }

    fn frame<M: Message>(&self, response: &M, receipt: Durability, flags: u16) -> Vec<Bytes> {
        let header = ResponseHeader { receipt, flags, ..self.header.response() };
        response_frame(header, |writer| response.encode(header.version, writer))
    }

    /// Answers with nothing but an error.
    pub async fn refuse(self, error: ErrorCode, message: String) {
        let mut header = self.header.response();
        header.flags |= FLAG_ERROR;
        let response = ErrorResponse { error, message: Some(message) };
        let frame = response_frame(header, |writer| response.encode(header.version, writer));
        self.connection.respond(frame, None).await;
    }
}
