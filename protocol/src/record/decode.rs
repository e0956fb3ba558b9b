//! Reads one record. Every length is checked against the record, and the record against the batch.

use std::ops::Range;

use bytes::Bytes;

use super::{Header, RecordError, varint};

/// A record's fields as they stand in a batch.
pub(crate) struct RecordFields {
    pub(crate) offset_delta: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<Header>,
    /// Where the next record begins.
    pub(crate) end: usize,
}

impl RecordFields {
    /// Reads the record that begins at `start` of `records` and is the `index`th of its batch.
    #[inline]
    pub(crate) fn decode(records: &Bytes, start: usize, index: u32) -> Result<RecordFields, RecordError> {
        let mut cursor = Cursor { records, at: start, end: records.len(), index };
        let record_len = cursor.len()?;
        cursor.end = cursor.at + record_len;
        cursor.skip_attributes()?;
        let timestamp_delta = cursor.i64()?;
        let offset_delta = cursor.i32()?;
        let key = cursor.optional()?;
        let value = cursor.optional()?;
        let headers = cursor.headers()?;
        if cursor.at != cursor.end {
            return Err(RecordError::TrailingBytes { index, count: cursor.end - cursor.at });
        }
        Ok(RecordFields { offset_delta, timestamp_delta, key, value, headers, end: cursor.end })
    }
}

/// Invariant: `at <= end <= records.len()`.
struct Cursor<'a> {
    records: &'a Bytes,
    at: usize,
    end: usize,
    index: u32,
}

impl Cursor<'_> {
    #[inline]
    fn i64(&mut self) -> Result<i64, RecordError> {
        let rest = &self.records[self.at..self.end];
        let Some((value, len)) = varint::get(rest) else {
            let index = self.index;
            let ends = rest.len() >= varint::LEN_MAX || rest.iter().any(|byte| *byte < 0x80);
            return Err(if ends { RecordError::Varint { index } } else { RecordError::Truncated { index } });
        };
        self.at += len;
        Ok(value)
    }

    #[inline]
    fn i32(&mut self) -> Result<i32, RecordError> {
        i32::try_from(self.i64()?).map_err(|_| RecordError::Varint { index: self.index })
    }

    fn skip_attributes(&mut self) -> Result<(), RecordError> {
        if self.at == self.end {
            return Err(RecordError::Truncated { index: self.index });
        }
        self.at += 1;
        Ok(())
    }

    /// A length or a count, for which enough bytes are left: one at least for each.
    #[inline]
    fn len(&mut self) -> Result<usize, RecordError> {
        let stated = self.i32()?;
        self.check_len(stated)
    }

    #[inline]
    fn check_len(&self, stated: i32) -> Result<usize, RecordError> {
        let remaining = self.end - self.at;
        match usize::try_from(stated) {
            Ok(len) if len <= remaining => Ok(len),
            _ => Err(RecordError::Length { index: self.index, stated, remaining }),
        }
    }

    /// Bytes, or nothing where the length is -1.
    #[inline]
    fn optional(&mut self) -> Result<Option<Bytes>, RecordError> {
        let stated = self.i32()?;
        if stated == -1 {
            return Ok(None);
        }
        let len = self.check_len(stated)?;
        Ok(Some(self.records.slice(self.skip(len))))
    }

    #[inline]
    fn skip(&mut self, len: usize) -> Range<usize> {
        let start = self.at;
        self.at += len;
        start..self.at
    }

    #[inline]
    fn headers(&mut self) -> Result<Vec<Header>, RecordError> {
        let count = self.len()?;
        // Grows with what is really there: a header takes far more in memory than the two bytes it may take here.
        let mut headers = Vec::new();
        for _ in 0..count {
            headers.push(self.header()?);
        }
        Ok(headers)
    }

    fn header(&mut self) -> Result<Header, RecordError> {
        let len = self.len()?;
        let name = self.skip(len);
        let key = std::str::from_utf8(&self.records[name])
            .map_err(|_| RecordError::HeaderName { index: self.index })?
            .to_owned();
        let value = self.optional()?;
        Ok(Header { key, value })
    }
}
