//! Takes a body apart. Every method either returns a whole value or an error, and never reads past the end.

use bytes::{Buf, Bytes};

use crate::error_code::ErrorCode;
use crate::ids::InvalidTopicName;

/// Why a body is not what it claims to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// A value is longer than what is left.
    #[error("a value of {needed} bytes begins where only {remaining} are left")]
    Truncated {
        /// Length of the value, in bytes.
        needed: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A list claims more elements than the bytes that are left could hold.
    #[error(
        "a list claims {count} elements of at least {element_len_min} bytes where only {remaining} bytes are left"
    )]
    CountTooLarge {
        /// Elements claimed.
        count: u32,
        /// The least an element takes, in bytes.
        element_len_min: usize,
        /// Bytes that are left.
        remaining: usize,
    },
    /// A list is longer than whoever reads is ready for.
    #[error("a list of {count} elements is longer than the {list_len_max} allowed in a request")]
    ListTooLong {
        /// Elements claimed.
        count: usize,
        /// Elements allowed.
        list_len_max: usize,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes follow the last field")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A text is not UTF-8.
    #[error("a text of {len} bytes is not UTF-8")]
    NotUtf8 {
        /// Its length, in bytes.
        len: usize,
    },
    /// A byte that stands for one of a few choices stands for none of them.
    #[error("{number} is not a {what}")]
    UnknownChoice {
        /// What was to be chosen.
        what: &'static str,
        /// The number found.
        number: u64,
    },
    /// Tagged fields are not in ascending order of their tags.
    #[error("tagged field {tag} follows tagged field {previous}")]
    TagOrder {
        /// The tag found.
        tag: u16,
        /// The tag before it.
        previous: u16,
    },
    /// This build does not know the version.
    #[error("version {version} is not known, the newest known is {newest}")]
    UnsupportedVersion {
        /// The version asked for.
        version: u16,
        /// The newest this build knows.
        newest: u16,
    },
    /// A text that has to be a topic name is not one.
    #[error("{0}")]
    TopicName(#[from] InvalidTopicName),
}

impl DecodeError {
    /// What a broker answers to a request with this fault.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            DecodeError::UnsupportedVersion { .. } => ErrorCode::UnsupportedVersion,
            DecodeError::TopicName(_) => ErrorCode::InvalidTopicName,
            _ => ErrorCode::InvalidRequest,
        }
    }
}

/// A cursor over the body of one frame.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
    list_len_max: usize,
}

impl Reader {
    /// Begins at the first byte of `body`.
    pub fn new(body: Bytes) -> Reader {
        Reader::with_lists_up_to(usize::MAX, body)
    }

    /// Refuses lists of more than `list_len_max` elements before it takes any room for them.
    pub fn with_lists_up_to(list_len_max: usize, body: Bytes) -> Reader {
        Reader { rest: body, list_len_max }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading: nothing may be left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        if needed > self.rest.len() {
            return Err(DecodeError::Truncated { needed, remaining: self.rest.len() });
        }
        Ok(())
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.rest.get_u8())
    }

    /// Two bytes, unsigned.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.rest.get_u16_le())
    }

    /// Four bytes, unsigned.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.rest.get_u32_le())
    }

    /// Eight bytes, unsigned.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_u64_le())
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.need(8)?;
        Ok(self.rest.get_i64_le())
    }

    /// One byte that is 0 or 1.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::UnknownChoice { what: "boolean", number: other.into() }),
        }
    }

    /// Sixteen bytes as they are.
    pub fn uuid(&mut self) -> Result<[u8; 16], DecodeError> {
        self.need(16)?;
        let mut id = [0; 16];
        self.rest.copy_to_slice(&mut id);
        Ok(id)
    }

    /// A length of four bytes and that many bytes, as a slice of the body.
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let len = self.len()?;
        Ok(self.rest.split_to(len))
    }

    /// A length of four bytes and that many bytes of UTF-8.
    pub fn string(&mut self) -> Result<String, DecodeError> {
        let len = self.len()?;
        let text = self.rest.split_to(len);
        std::str::from_utf8(&text).map(str::to_owned).map_err(|_| DecodeError::NotUtf8 { len })
    }

    fn len(&mut self) -> Result<usize, DecodeError> {
        let len = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.need(len)?;
        Ok(len)
    }

    /// One byte that is 0 or 1 and, after 1, a value.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// A count of four bytes, refused if that many elements of `element_len_min` bytes (at least 1) cannot follow, or
    /// if it is more than this reader takes.
    pub fn count(&mut self, element_len_min: usize) -> Result<usize, DecodeError> {
        debug_assert!(element_len_min > 0, "an element of no bytes bounds nothing");
        let count = self.u32()?;
        let remaining = self.rest.len();
        let elements = usize::try_from(count).unwrap_or(usize::MAX);
        if elements > remaining / element_len_min.max(1) {
            return Err(DecodeError::CountTooLarge { count, element_len_min, remaining });
        }
        if elements > self.list_len_max {
            return Err(DecodeError::ListTooLong { count: elements, list_len_max: self.list_len_max });
        }
        Ok(elements)
    }

    /// A count and that many elements of at least `element_len_min` bytes each.
    ///
    /// An element may be larger in memory than on the wire, so no more room is taken ahead of reading than the bytes
    /// left would fill.
    pub fn list<T>(
        &mut self,
        element_len_min: usize,
        mut read: impl FnMut(&mut Reader) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(element_len_min)?;
        let mut elements = Vec::with_capacity(count.min(self.rest.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            elements.push(read(self)?);
        }
        Ok(elements)
    }

    /// A section of tagged fields: a count of two bytes, then for each a tag of two bytes, a length of four, a value.
    ///
    /// `field` reads the value of a tag it knows and returns true, or returns false to have it skipped. Tags ascend.
    pub fn tagged(
        &mut self,
        mut field: impl FnMut(u16, &mut Reader) -> Result<bool, DecodeError>,
    ) -> Result<(), DecodeError> {
        let mut previous = None;
        for _ in 0..self.u16()? {
            let tag = self.u16()?;
            if let Some(previous) = previous.filter(|&previous| previous >= tag) {
                return Err(DecodeError::TagOrder { tag, previous });
            }
            previous = Some(tag);
            let mut value = Reader::with_lists_up_to(self.list_len_max, self.bytes()?);
            if field(tag, &mut value)? {
                value.finish()?;
            }
        }
        Ok(())
    }
}
