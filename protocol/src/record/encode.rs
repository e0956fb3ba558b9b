//! Writes one record. Lengths are computed first, so that the record is written once and in order.

use bytes::{BufMut, BytesMut};

use super::{Header, varint};

/// With this record the batch would not fit into Kafka's 31-bit length.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a batch of {len} bytes is longer than the 2147483647 that its length field holds")]
pub struct RecordTooLong {
    /// Length of the batch with the record, in bytes.
    pub len: usize,
}

/// No attribute of a single record is defined.
const ATTRIBUTES: u8 = 0;
const NULL: i64 = -1;

/// Appends the record to the batch in `out`, or leaves `out` as it was.
#[inline]
pub(crate) fn encode(
    out: &mut BytesMut,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header],
) -> Result<(), RecordTooLong> {
    let body_len = 1
        + varint::len(timestamp_delta)
        + varint::len(offset_delta.into())
        + optional_len(key)
        + optional_len(value)
        + headers_len(headers);
    // Every length inside is smaller than this one, so that one check covers them all, and the number of records too.
    let len = out.len() + varint::LEN_MAX + body_len;
    if i32::try_from(len).is_err() {
        return Err(RecordTooLong { len });
    }

    out.reserve(varint::LEN_MAX + body_len);
    let mut room = [0; 4 * varint::LEN_MAX + 1];
    let mut at = varint::put(signed(body_len), &mut room);
    room[at] = ATTRIBUTES;
    at += 1;
    at += varint::put(timestamp_delta, &mut room[at..]);
    at += varint::put(offset_delta.into(), &mut room[at..]);
    at += varint::put(stated_len(key), &mut room[at..]);
    out.put_slice(&room[..at]);
    out.put_slice(key.unwrap_or_default());
    put_optional(out, value);
    put_varint(out, signed(headers.len()));
    for header in headers {
        put_optional(out, Some(header.key.as_bytes()));
        put_optional(out, header.value.as_deref());
    }
    Ok(())
}

fn headers_len(headers: &[Header]) -> usize {
    let each =
        headers.iter().map(|h| optional_len(Some(h.key.as_bytes())) + optional_len(h.value.as_deref()));
    varint::len(signed(headers.len())) + each.sum::<usize>()
}

fn optional_len(bytes: Option<&[u8]>) -> usize {
    varint::len(stated_len(bytes)) + bytes.map_or(0, <[u8]>::len)
}

fn stated_len(bytes: Option<&[u8]>) -> i64 {
    bytes.map_or(NULL, |bytes| signed(bytes.len()))
}

fn put_optional(out: &mut BytesMut, bytes: Option<&[u8]>) {
    put_varint(out, stated_len(bytes));
    out.put_slice(bytes.unwrap_or_default());
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut room = [0; varint::LEN_MAX];
    let len = varint::put(value, &mut room);
    out.put_slice(&room[..len]);
}

/// The length of something in memory; Rust keeps those within `isize`.
fn signed(len: usize) -> i64 {
    i64::try_from(len).expect("what lies in memory is shorter than 2^63 bytes")
}
