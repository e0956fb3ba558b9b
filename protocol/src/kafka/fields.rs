//! The two ways to walk a message: a reader fills its fields, a writer puts them out.

use bytes::Bytes;

/// Why a body is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body ends inside a value.
    #[error("a value of {needed} bytes begins where only {remaining} are left")]
    Truncated {
        /// What the value takes.
        needed: usize,
        /// What there is.
        remaining: usize,
    },
    /// A length below zero where null is not allowed, or below -1.
    #[error("a {what} has length {len}")]
    NegativeLength {
        /// Of what.
        what: &'static str,
        /// As stated.
        len: i64,
    },
    /// All lists of a request together are longer than a broker takes.
    #[error("the lists of a request hold {count} elements and more, {max} are allowed")]
    TooManyElements {
        /// With the list that was one too many.
        count: usize,
        /// What is allowed.
        max: usize,
    },
    /// A text that is none.
    #[error("a text of {len} bytes is not UTF-8")]
    NotUtf8 {
        /// Its length.
        len: usize,
    },
    /// A variable-length number that does not end within 32 bits.
    #[error("a variable-length number is longer than 32 bits")]
    VarintTooLong,
}

/// Visits one field after the other. Lengths are compact and tagged fields are there where the version is flexible.
pub trait Fields: Sized {
    /// A byte.
    fn i8(&mut self, field: &mut i8) -> Result<(), DecodeError>;
    /// A number of 16 bits.
    fn i16(&mut self, field: &mut i16) -> Result<(), DecodeError>;
    /// A number of 32 bits.
    fn i32(&mut self, field: &mut i32) -> Result<(), DecodeError>;
    /// A number of 64 bits.
    fn i64(&mut self, field: &mut i64) -> Result<(), DecodeError>;
    /// A truth value.
    fn bool(&mut self, field: &mut bool) -> Result<(), DecodeError>;
    /// 16 bytes.
    fn uuid(&mut self, field: &mut [u8; 16]) -> Result<(), DecodeError>;
    /// A text.
    fn string(&mut self, field: &mut String) -> Result<(), DecodeError>;
    /// A text or null.
    fn nullable_string(&mut self, field: &mut Option<String>) -> Result<(), DecodeError>;
    /// Record batches, in pieces that lie one behind the other on the wire; none of them and null are the same. A
    /// reader gives one piece, a slice of the body.
    fn records(&mut self, field: &mut Vec<Bytes>) -> Result<(), DecodeError>;
    /// A list.
    fn list<T: Default>(
        &mut self,
        field: &mut Vec<T>,
        element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError>;
    /// A list or null.
    fn nullable_list<T: Default>(
        &mut self,
        field: &mut Option<Vec<T>>,
        element: impl FnMut(&mut T, &mut Self) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError>;
    /// The end of a structure: its tagged fields, of which none is known here.
    fn tags(&mut self) -> Result<(), DecodeError>;
}
