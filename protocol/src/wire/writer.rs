//! Puts a body together: small values into one growing buffer, large payloads beside it as they are.

use bytes::{BufMut, Bytes, BytesMut};

/// A payload from this length on is taken over as a chunk of its own; a shorter one costs less to copy.
const SHARED_LEN_MIN: usize = 1024;

/// Collects the bytes of a body as a few chunks, ready for a vectored write.
#[derive(Debug, Default)]
pub struct Writer {
    chunks: Vec<Chunk>,
    tail: BytesMut,
    /// Bytes in `chunks`.
    chunks_len: usize,
}

#[derive(Debug)]
enum Chunk {
    Own(BytesMut),
    Shared(Bytes),
}

impl Writer {
    /// An empty writer.
    pub fn new() -> Writer {
        Writer::default()
    }

    /// An empty writer with room for `capacity` bytes of small values.
    pub fn with_capacity(capacity: usize) -> Writer {
        Writer { tail: BytesMut::with_capacity(capacity), ..Writer::default() }
    }

    /// Bytes written so far.
    pub fn len(&self) -> usize {
        self.chunks_len + self.tail.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One byte.
    pub fn put_u8(&mut self, value: u8) {
        self.tail.put_u8(value);
    }

    /// Two bytes, unsigned.
    pub fn put_u16(&mut self, value: u16) {
        self.tail.put_u16_le(value);
    }

    /// Four bytes, unsigned.
    pub fn put_u32(&mut self, value: u32) {
        self.tail.put_u32_le(value);
    }

    /// Eight bytes, unsigned.
    pub fn put_u64(&mut self, value: u64) {
        self.tail.put_u64_le(value);
    }

    /// Eight bytes, signed.
    pub fn put_i64(&mut self, value: i64) {
        self.tail.put_i64_le(value);
    }

    /// One byte, 0 or 1.
    pub fn put_bool(&mut self, value: bool) {
        self.tail.put_u8(value.into());
    }

    /// Sixteen bytes as they are.
    pub fn put_uuid(&mut self, value: [u8; 16]) {
        self.tail.put_slice(&value);
    }

    /// Bytes of a layout that is not this one's.
    pub fn put_raw(&mut self, bytes: &[u8]) {
        self.tail.put_slice(bytes);
    }

    /// A length of four bytes and the text.
    pub fn put_str(&mut self, text: &str) {
        self.put_len(text.len());
        self.tail.put_slice(text.as_bytes());
    }

    /// A length of four bytes and the payload, not copied if it is large.
    pub fn put_bytes(&mut self, payload: Bytes) {
        self.put_len(payload.len());
        self.put_shared(payload);
    }

    /// A length of four bytes and all the payloads as one, not copied if they are large.
    pub fn put_bytes_joined(&mut self, payloads: &[Bytes]) {
        self.put_len(payloads.iter().map(Bytes::len).sum());
        for payload in payloads {
            self.put_shared(payload.clone());
        }
    }

    /// The payload alone, with no length before it; not copied if it is large.
    pub fn put_shared(&mut self, payload: Bytes) {
        if payload.len() < SHARED_LEN_MIN {
            self.tail.put_slice(&payload);
            return;
        }
        self.close_tail();
        self.chunks_len += payload.len();
        self.chunks.push(Chunk::Shared(payload));
    }

    /// 0, or 1 and the value.
    pub fn put_option<T: ?Sized>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Writer, &T)) {
        self.put_bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// A count of four bytes and the elements.
    pub fn put_list<T>(&mut self, elements: &[T], mut write: impl FnMut(&mut Writer, &T)) {
        self.put_len(elements.len());
        for element in elements {
            write(self, element);
        }
    }

    /// An empty section of tagged fields.
    pub fn put_no_tags(&mut self) {
        self.put_u16(0);
    }

    /// All chunks, in order; none is empty.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.close_tail();
        self.chunks
            .into_iter()
            .map(|chunk| match chunk {
                Chunk::Own(bytes) => bytes.freeze(),
                Chunk::Shared(bytes) => bytes,
            })
            .collect()
    }

    /// Overwrites the first bytes, which must have been written as small values and with nothing large among them.
    pub(crate) fn overwrite_start(&mut self, bytes: &[u8]) {
        let first = match self.chunks.first_mut() {
            None => &mut self.tail,
            Some(Chunk::Own(own)) => own,
            Some(Chunk::Shared(_)) => unreachable!("a frame begins with its header, which is no payload"),
        };
        first[..bytes.len()].copy_from_slice(bytes);
    }

    fn append(&mut self, mut other: Writer) {
        if other.chunks.is_empty() {
            self.tail.put_slice(&other.tail);
            return;
        }
        self.close_tail();
        other.close_tail();
        self.chunks_len += other.chunks_len;
        self.chunks.append(&mut other.chunks);
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let closed = self.tail.split();
            self.chunks_len += closed.len();
            self.chunks.push(Chunk::Own(closed));
        }
    }

    fn put_len(&mut self, len: usize) {
        // Frames are refused from far smaller sizes on; a payload of 4 GiB here is a broken caller.
        let len = u32::try_from(len).expect("a length fits in 32 bits");
        self.put_u32(len);
    }
}

/// Collects the tagged fields of one section. Allocates nothing while there are none.
#[derive(Debug, Default)]
pub struct TaggedWriter {
    fields: Writer,
    count: u16,
    last: Option<u16>,
}

impl TaggedWriter {
    /// An empty section.
    pub fn new() -> TaggedWriter {
        TaggedWriter::default()
    }

    /// Adds a field. Tags ascend.
    pub fn field(&mut self, tag: u16, write: impl FnOnce(&mut Writer)) {
        assert!(self.last.is_none_or(|last| last < tag), "tag {tag} follows tag {:?}", self.last);
        let mut value = Writer::new();
        write(&mut value);
        self.fields.put_u16(tag);
        self.fields.put_len(value.len());
        self.fields.append(value);
        self.count += 1;
        self.last = Some(tag);
    }

    /// Writes the section.
    pub fn finish(self, writer: &mut Writer) {
        writer.put_u16(self.count);
        writer.append(self.fields);
    }
}
