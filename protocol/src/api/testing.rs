//! What every api's tests share: how a message is put to the proof, and the values that messages are made of.

use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;

use super::Message;
use crate::error_code::ErrorCode;
use crate::ids::{NodeId, TopicId, TopicName};
use crate::wire::Writer;

/// The message comes back from its bytes; no beginning of them is taken for it; no flipped bit makes the reader panic.
pub(super) fn assert_survives<T: Message + PartialEq + Debug>(message: &T) {
    let mut writer = Writer::new();
    message.encode(0, &mut writer);
    let len = writer.len();
    let body = Bytes::from(writer.finish().concat());
    assert_eq!(body.len(), len);
    assert_eq!(T::decode(0, body.clone()).as_ref(), Ok(message));
    for cut in 0..body.len() {
        assert!(
            T::decode(0, body.slice(..cut)).is_err(),
            "the first {cut} of {len} bytes were taken for a message"
        );
    }
    for bit in 0..body.len() * 8 {
        let mut flipped = body.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = T::decode(0, Bytes::from(flipped));
    }
}

pub(super) fn any_topic() -> impl Strategy<Value = TopicId> {
    any::<[u8; 16]>().prop_map(TopicId)
}

pub(super) fn any_name() -> impl Strategy<Value = TopicName> {
    "[a-zA-Z0-9_-]{1,20}".prop_map(|name| TopicName::new(&name).unwrap())
}

pub(super) fn any_text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

pub(super) fn any_message() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(any_text())
}

pub(super) fn any_error() -> impl Strategy<Value = ErrorCode> {
    any::<u16>().prop_map(ErrorCode::from_code)
}

pub(super) fn any_payload() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

pub(super) fn any_configs() -> impl Strategy<Value = Vec<(String, String)>> {
    proptest::collection::vec((any_text(), any_text()), 0..3)
}

pub(super) fn any_nodes() -> impl Strategy<Value = Vec<NodeId>> {
    proptest::collection::vec(any::<u32>().prop_map(NodeId), 0..4)
}
