//! The metadata plane: records, the image they build, and what changed from one image to the next.

mod delta;
pub(crate) mod image;
pub(crate) mod records;
mod wire;

pub use delta::{Change, Delta};
pub use image::{ApplyError, Image, Partition, Topic};
pub use records::{
    BrokerRegistrationRecord, ClusterIdentityRecord, DecodeError, MetadataRecord, PartitionRecord,
    ProducerIdsRecord, RECORD_LEN_MAX, RECORD_VERSION, RemoveTopicRecord, TopicConfigRecord, TopicRecord,
};
