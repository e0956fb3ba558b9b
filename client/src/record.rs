//! A record on its way in.

use bytes::Bytes;
use corrente_protocol::record::Header;

/// A record to be produced: a value, and whatever else is wanted.
///
/// ```
/// use corrente_client::Record;
/// let record = Record::value("paid").key("order-17").header("trace", "4711");
/// assert_eq!(record.size(), 4 + 8 + 5 + 4);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) partition: Option<u32>,
}

impl Record {
    /// A record with this value, no key and no headers.
    pub fn value(value: impl Into<Bytes>) -> Record {
        Record { value: Some(value.into()), ..Record::default() }
    }

    /// A record with a key and no value: in a compacted topic it deletes the key.
    pub fn tombstone(key: impl Into<Bytes>) -> Record {
        Record { key: Some(key.into()), ..Record::default() }
    }

    /// Sets the key. Records with equal keys go to the same partition, in order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Record {
        self.key = Some(key.into());
        self
    }

    /// Adds a header. A key may occur several times.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Record {
        self.headers.push(Header { key: key.into(), value: Some(value.into()) });
        self
    }

    /// Adds a header without a value.
    pub fn null_header(mut self, key: impl Into<String>) -> Record {
        self.headers.push(Header { key: key.into(), value: None });
        self
    }

    /// Sets the timestamp, in milliseconds since the Unix epoch. Default: the time of `send`.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Record {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// Names the partition instead of leaving it to the key or the partitioner.
    pub fn partition(mut self, partition: u32) -> Record {
        self.partition = Some(partition);
        self
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|h| h.key.len() + length(&h.value)).sum();
        length(&self.key) + length(&self.value) + headers
    }
}
