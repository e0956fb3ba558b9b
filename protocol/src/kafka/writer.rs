//! Puts the fields of a message out, record batches as they are.

use bytes::Bytes;

use super::fields::{DecodeError, Fields};
use crate::wire;

/// Writes a body.
#[derive(Debug)]
pub struct Writer {
    out: wire::Writer,
    flexible: bool,
}

impl Writer {
    /// Behind what `out` holds.
    pub fn new(out: wire::Writer, flexible: bool) -> Writer {
        Writer { out, flexible }
    }

    /// Everything written, in pieces.
    pub fn finish(self) -> Vec<Bytes> {
        self.out.finish()
    }

    fn put_uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn put_len(&mut self, len: Option<usize>, wide: bool) {
        let len = len.map(|len| i32::try_from(len).expect("nothing in a frame is longer than 2 GiB"));
        if self.flexible {
            self.put_uvarint(len.map_or(0, |len| len.cast_unsigned() + 1));
        } else if wide {
            self.out.put_raw(&len.unwrap_or(-1).to_be_bytes());
        } else {
            let len = i16::try_from(len.unwrap_or(-1)).expect("texts are cut before");
            self.out.put_raw(&len.to_be_bytes());
        }
    }

    fn put_text(&mut self, text: &str) {
        let text = if self.flexible { text } else { cut(text) };
        self.put_len(Some(text.len()), false);
        self.out.put_raw(text.as_bytes());
    }

    fn put_elements<T>(
        &mut self,
        list: &mut [T],
        mut element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.put_len(Some(list.len()), true);
        list.iter_mut().try_for_each(|value| element(value, self))
    }
}

/// What a length of 15 bits still carries.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(i16::MAX as usize)]
}

impl Fields for Writer {
    fn i8(&mut self, field: &mut i8) -> Result<(), DecodeError> {
        self.out.put_raw(&field.to_be_bytes());
        Ok(())
    }

    fn i16(&mut self, field: &mut i16) -> Result<(), DecodeError> {
        self.out.put_raw(&field.to_be_bytes());
        Ok(())
    }

    fn i32(&mut self, field: &mut i32) -> Result<(), DecodeError> {
        self.out.put_raw(&field.to_be_bytes());
        Ok(())
    }

    fn i64(&mut self, field: &mut i64) -> Result<(), DecodeError> {
        self.out.put_raw(&field.to_be_bytes());
        Ok(())
    }

    fn bool(&mut self, field: &mut bool) -> Result<(), DecodeError> {
        self.out.put_bool(*field);
        Ok(())
    }

    fn uuid(&mut self, field: &mut [u8; 16]) -> Result<(), DecodeError> {
        self.out.put_uuid(*field);
        Ok(())
    }

    fn string(&mut self, field: &mut String) -> Result<(), DecodeError> {
        self.put_text(field);
        Ok(())
    }

    fn nullable_string(&mut self, field: &mut Option<String>) -> Result<(), DecodeError> {
        match field {
            Some(text) => self.put_text(text),
            None => self.put_len(None, false),
        }
        Ok(())
    }

    fn records(&mut self, field: &mut Vec<Bytes>) -> Result<(), DecodeError> {
        // Clients take null for an error where nothing was found.
        self.put_len(Some(field.iter().map(Bytes::len).sum()), true);
        for piece in field.drain(..) {
            self.out.put_shared(piece);
        }
        Ok(())
    }

    fn list<T: Default>(
        &mut self,
        field: &mut Vec<T>,
        element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.put_elements(field, element)
    }

    fn nullable_list<T: Default>(
        &mut self,
        field: &mut Option<Vec<T>>,
        element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        match field {
            Some(list) => self.put_elements(list, element),
            None => {
                self.put_len(None, true);
                Ok(())
            }
        }
    }

    fn tags(&mut self) -> Result<(), DecodeError> {
        if self.flexible {
            self.put_uvarint(0);
        }
        Ok(())
    }
}
