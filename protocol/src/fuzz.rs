//! Entries for fuzzing, by the names of their targets in `fuzz/`. Not part of the api.
//!
//! An entry takes bytes from a stranger and comes back: it never panics, and holds little more than what arrived
//! ([`HELD_BASE`], [`HELD_PER_BYTE`]). It lives with its decoder, as `fuzz_…`, and asserts what that decoder promises.
//! Other crates list theirs the same way.

use crate::api::{self, fuzz_api, fuzz_message};
use crate::compression::{Compression, fuzz_codec};

pub use crate::frame::fuzz_frame as frame;
pub use crate::hello::fuzz_hello as hello;
pub use crate::kafka::fuzz_kafka_message as kafka_message;
pub use crate::kafka::fuzz_kafka_request as kafka_request;
pub use crate::record::fuzz_record as record;
pub use crate::record_batch::fuzz::fuzz_header as batch_header;
pub use crate::record_batch::fuzz::fuzz_records as batch_records;
pub use crate::record_batch::fuzz::fuzz_round_trip as batch_round_trip;
pub use crate::record_batch::fuzz::fuzz_validate as batch_validate;
pub use crate::wire::fuzz_reader as wire;

/// The name of a target and its entry.
pub type Entry = (&'static str, fn(&[u8]));

/// Every entry of this crate.
pub const ENTRIES: &[Entry] = &[
    ("api_produce", api_produce),
    ("api_fetch", api_fetch),
    ("api_list_offsets", api_list_offsets),
    ("api_metadata", api_metadata),
    ("api_subscribe", api_subscribe),
    ("api_adjust_subscription", api_adjust_subscription),
    ("api_create_topic", api_create_topic),
    ("api_delete_topic", api_delete_topic),
    ("api_alter_topic", api_alter_topic),
    ("api_describe_topic", api_describe_topic),
    ("api_add_partitions", api_add_partitions),
    ("api_delete_records", api_delete_records),
    ("api_init_producer_id", api_init_producer_id),
    ("api_error", api_error),
    ("batch_header", batch_header),
    ("batch_records", batch_records),
    ("batch_round_trip", batch_round_trip),
    ("batch_validate", batch_validate),
    ("codec_gzip", codec_gzip),
    ("codec_lz4", codec_lz4),
    ("codec_snappy", codec_snappy),
    ("codec_zstd", codec_zstd),
    ("frame", frame),
    ("hello", hello),
    ("kafka_message", kafka_message),
    ("kafka_request", kafka_request),
    ("record", record),
    ("wire", wire),
];

/// The most bytes an entry may hold at once, whatever it is given.
pub const HELD_BASE: usize = 1 << 20;
/// The same for an entry that makes a simulated world, with its disk and its buffers.
pub const HELD_BASE_OF_WORLDS: usize = 64 << 20;
/// The most bytes an entry may hold at once beyond that for each byte of its input. What a length in the input only
/// claims is never among them.
pub const HELD_PER_BYTE: usize = 256;

macro_rules! entries {
    ($($name:ident = $entry:expr;)*) => {$(
        #[doc = concat!("The entry of target `", stringify!($name), "`.")]
        pub fn $name(bytes: &[u8]) {
            $entry(bytes);
        }
    )*};
}
entries! {
    api_produce = fuzz_api::<api::ProduceRequest>;
    api_fetch = fuzz_api::<api::FetchRequest>;
    api_list_offsets = fuzz_api::<api::ListOffsetsRequest>;
    api_metadata = fuzz_api::<api::MetadataRequest>;
    api_subscribe = fuzz_api::<api::SubscribeRequest>;
    api_adjust_subscription = fuzz_api::<api::AdjustSubscriptionRequest>;
    api_create_topic = fuzz_api::<api::CreateTopicRequest>;
    api_delete_topic = fuzz_api::<api::DeleteTopicRequest>;
    api_alter_topic = fuzz_api::<api::AlterTopicRequest>;
    api_describe_topic = fuzz_api::<api::DescribeTopicRequest>;
    api_add_partitions = fuzz_api::<api::AddPartitionsRequest>;
    api_delete_records = fuzz_api::<api::DeleteRecordsRequest>;
    api_init_producer_id = fuzz_api::<api::InitProducerIdRequest>;
    api_error = fuzz_message::<api::ErrorResponse>;
    codec_gzip = |bytes| fuzz_codec(Compression::Gzip, bytes);
    codec_lz4 = |bytes| fuzz_codec(Compression::Lz4, bytes);
    codec_snappy = |bytes| fuzz_codec(Compression::Snappy, bytes);
    codec_zstd = |bytes| fuzz_codec(Compression::Zstd, bytes);
}

/// An input read as a row of choices. Past its end every choice is 0 and every slice empty.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    rest: &'a [u8],
}

impl<'a> Choices<'a> {
    /// From the first byte of `input` on.
    pub fn new(input: &'a [u8]) -> Choices<'a> {
        Choices { rest: input }
    }

    /// Whether all is read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | u32::from(self.u16()) << 16
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | u64::from(self.u32()) << 32
    }

    /// A length of two bytes and that many bytes, or as many as there are.
    pub fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.u16());
        self.take(len)
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }
}
