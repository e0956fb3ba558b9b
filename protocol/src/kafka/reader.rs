//! Fills the fields of a message from a body. Nothing is allocated for what has not arrived.

use bytes::{Buf, Bytes};

use super::fields::{DecodeError, Fields};

/// Elements of all lists of one request together: each takes more memory here than bytes on the wire.
const ELEMENTS_MAX: usize = 100_000;

/// Reads a body.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
    flexible: bool,
    elements: usize,
}

impl Reader {
    /// Over a whole body, or what follows a header.
    pub fn new(body: Bytes, flexible: bool) -> Reader {
        Reader { rest: body, flexible, elements: 0 }
    }

    /// What was not read.
    pub fn into_rest(self) -> Bytes {
        self.rest
    }

    fn need(&self, needed: usize) -> Result<(), DecodeError> {
        match self.rest.len() {
            remaining if needed > remaining => Err(DecodeError::Truncated { needed, remaining }),
            _ => Ok(()),
        }
    }

    fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        self.need(len)?;
        Ok(self.rest.split_to(len))
    }

    /// An unsigned number of up to five bytes, seven bits in each, the lowest first.
    fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            self.need(1)?;
            let byte = self.rest.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::VarintTooLong);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// A length, or null. Compact ones are one greater than what they stand for; `wide` are the others' 32 bits.
    fn len(&mut self, what: &'static str, wide: bool) -> Result<Option<usize>, DecodeError> {
        let len = if self.flexible {
            i64::from(self.uvarint()?) - 1
        } else if wide {
            self.need(4)?;
            i64::from(self.rest.get_i32())
        } else {
            self.need(2)?;
            i64::from(self.rest.get_i16())
        };
        match usize::try_from(len) {
            Ok(len) => Ok(Some(len)),
            Err(_) if len == -1 => Ok(None),
            Err(_) => Err(DecodeError::NegativeLength { what, len }),
        }
    }

    fn elements<T: Default>(
        &mut self,
        count: usize,
        mut element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        // An element takes a byte at least.
        self.need(count)?;
        self.elements += count;
        if self.elements > ELEMENTS_MAX {
            return Err(DecodeError::TooManyElements { count: self.elements, max: ELEMENTS_MAX });
        }
        let mut list = Vec::with_capacity(count.min(self.rest.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            let mut value = T::default();
            element(&mut value, self)?;
            list.push(value);
        }
        Ok(list)
    }

    fn text(&mut self, len: usize) -> Result<String, DecodeError> {
        let bytes = self.take(len)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8 { len })
    }
}

const NULL: i64 = -1;

impl Fields for Reader {
    fn i8(&mut self, field: &mut i8) -> Result<(), DecodeError> {
        self.need(1)?;
        *field = self.rest.get_i8();
        Ok(())
    }

    fn i16(&mut self, field: &mut i16) -> Result<(), DecodeError> {
        self.need(2)?;
        *field = self.rest.get_i16();
        Ok(())
    }

    fn i32(&mut self, field: &mut i32) -> Result<(), DecodeError> {
        self.need(4)?;
        *field = self.rest.get_i32();
        Ok(())
    }

    fn i64(&mut self, field: &mut i64) -> Result<(), DecodeError> {
        self.need(8)?;
        *field = self.rest.get_i64();
        Ok(())
    }

    fn bool(&mut self, field: &mut bool) -> Result<(), DecodeError> {
        self.need(1)?;
        *field = self.rest.get_u8() != 0;
        Ok(())
    }

    fn uuid(&mut self, field: &mut [u8; 16]) -> Result<(), DecodeError> {
        self.need(field.len())?;
        self.rest.copy_to_slice(field);
        Ok(())
    }

    fn string(&mut self, field: &mut String) -> Result<(), DecodeError> {
        let len = self.len("text", false)?.ok_or(DecodeError::NegativeLength { what: "text", len: NULL })?;
        *field = self.text(len)?;
        Ok(())
    }

    fn nullable_string(&mut self, field: &mut Option<String>) -> Result<(), DecodeError> {
        *field = match self.len("text", false)? {
            Some(len) => Some(self.text(len)?),
            None => None,
        };
        Ok(())
    }

    fn records(&mut self, field: &mut Vec<Bytes>) -> Result<(), DecodeError> {
        field.clear();
        if let Some(len) = self.len("field of records", true)? {
            field.push(self.take(len)?);
        }
        field.retain(|piece| !piece.is_empty());
        Ok(())
    }

    fn list<T: Default>(
        &mut self,
        field: &mut Vec<T>,
        element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let count = self.len("list", true)?.ok_or(DecodeError::NegativeLength { what: "list", len: NULL })?;
        *field = self.elements(count, element)?;
        Ok(())
    }

    fn nullable_list<T: Default>(
        &mut self,
        field: &mut Option<Vec<T>>,
        element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        *field = match self.len("list", true)? {
            Some(count) => Some(self.elements(count, element)?),
            None => None,
        };
        Ok(())
    }

    fn tags(&mut self) -> Result<(), DecodeError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()? as usize;
            self.take(len)?;
        }
        Ok(())
    }
}
