//! One record as it is printed: borrowed from the batch it arrived in.

use corrente_client::Header;

/// A record and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [Header],
    pub timestamp_ms: i64,
    pub partition: u32,
    pub offset: u64,
}
