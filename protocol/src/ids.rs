//! The names and positions every room shares.
//!
//! Each is a newtype, so that an offset is never mistaken for a count nor a node for a shard. Nothing here knows how it
//! is written on the wire; see [`crate::wire`].

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A position in a partition's log: the number of records that were appended before it.
///
/// Ends are exclusive: a log holding offsets 0 and 1 has log end offset 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset a log can hold.
    pub const ZERO: Offset = Offset(0);
    /// Later than every offset a log can hold; Kafka's signed 64-bit field sets the bound.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset `records` further on, or `None` past [`Offset::MAX`].
    pub fn checked_add(self, records: u64) -> Option<Offset> {
        let sum = self.0.checked_add(records)?;
        (sum <= Offset::MAX.0).then_some(Offset(sum))
    }

    /// The offset `records` further on, or the greatest number there is.
    pub fn saturating_add(self, records: u64) -> Offset {
        Offset(self.0.saturating_add(records))
    }

    /// How many records lie from `earlier` to here; 0 if `earlier` is not earlier.
    pub fn since(self, earlier: Offset) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Counts the leaderships of one partition; an election always makes it grow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LeaderEpoch(pub u32);

/// One broker process of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct NodeId(pub u32);

impl NodeId {
    /// Stands where no node is known, such as the leader of a partition without one.
    pub const NONE: NodeId = NodeId(u32::MAX);
}

/// One core of a node and all that it owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct ShardId(pub u16);

impl ShardId {
    /// In a hello: whichever shard the broker finds best. No node has a shard of this number.
    pub const ANY: ShardId = ShardId(u16::MAX);
}

/// The number of a partition within its topic, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PartitionIndex(pub u32);

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(Offset, LeaderEpoch, NodeId, ShardId, PartitionIndex);

/// What a topic is called inside the cluster: drawn once when it is created, never used again after it is deleted.
///
/// Displayed and parsed as a UUID in lower case with hyphens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// No topic; stands where an answer has none to name.
    pub const NIL: TopicId = TopicId([0; 16]);
    /// The internal log of metadata records.
    pub const METADATA: TopicId = TopicId([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

    /// A version 4 UUID from 16 random bytes. Six bits of them are overwritten, so it is neither
    /// [`TopicId::NIL`] nor [`TopicId::METADATA`].
    pub fn from_random(mut random: [u8; 16]) -> TopicId {
        random[6] = (random[6] & 0x0f) | 0x40;
        random[8] = (random[8] & 0x3f) | 0x80;
        TopicId(random)
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is not a UUID with hyphens.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{0}` is not a topic id: expected 32 hexadecimal digits in groups of 8-4-4-4-12")]
pub struct InvalidTopicId(String);

impl FromStr for TopicId {
    type Err = InvalidTopicId;

    fn from_str(text: &str) -> Result<TopicId, InvalidTopicId> {
        parse_uuid(text.as_bytes())
            .map(TopicId)
            .ok_or_else(|| InvalidTopicId(text.chars().take(64).collect()))
    }
}

fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return None;
    }
    let mut id = [0; 16];
    let mut digits = 0;
    for (index, &character) in text.iter().enumerate() {
        if HYPHENS.contains(&index) {
            if character != b'-' {
                return None;
            }
            continue;
        }
        let digit = match character {
            b'0'..=b'9' => character - b'0',
            b'a'..=b'f' => character - b'a' + 10,
            b'A'..=b'F' => character - b'A' + 10,
            _ => return None,
        };
        id[digits / 2] = id[digits / 2] << 4 | digit;
        digits += 1;
    }
    Some(id)
}

/// One partition of one topic: the address of a log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition within the topic.
    pub partition: PartitionIndex,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What people call a topic: 1 to 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// The longest topic name, in bytes; Kafka's bound.
pub const TOPIC_NAME_LEN_MAX: usize = 249;

impl TopicName {
    /// The name, if it is one.
    pub fn new(name: &str) -> Result<TopicName, InvalidTopicName> {
        if name.is_empty() {
            return Err(InvalidTopicName::Empty);
        }
        if name.len() > TOPIC_NAME_LEN_MAX {
            return Err(InvalidTopicName::TooLong { len: name.len() });
        }
        if let Some((index, found)) = name.char_indices().find(|&(_, c)| !is_name_character(c)) {
            return Err(InvalidTopicName::Character { found, index });
        }
        if name == "." || name == ".." {
            return Err(InvalidTopicName::Dots);
        }
        Ok(TopicName(Arc::from(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl AsRef<str> for TopicName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for TopicName {
    type Err = InvalidTopicName;

    fn from_str(name: &str) -> Result<TopicName, InvalidTopicName> {
        TopicName::new(name)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicName({})", self.0)
    }
}

/// Why a text is not a topic name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidTopicName {
    /// There is no text.
    #[error("a topic name is not empty")]
    Empty,
    /// There is too much of it.
    #[error("a topic name has at most {TOPIC_NAME_LEN_MAX} bytes, this one has {len}")]
    TooLong {
        /// Length of the text, in bytes.
        len: usize,
    },
    /// A character is not allowed.
    #[error(
        "a topic name has only letters, digits, `.`, `_` and `-`, this one has {found:?} at byte {index}"
    )]
    Character {
        /// The first character that is not allowed.
        found: char,
        /// Where it begins, in bytes.
        index: usize,
    },
    /// It would name a directory.
    #[error("`.` and `..` are not topic names")]
    Dots,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topic_names_say_what_is_wrong_with_them() {
        assert_eq!(TopicName::new("").unwrap_err(), InvalidTopicName::Empty);
        assert_eq!(TopicName::new(&"a".repeat(300)).unwrap_err(), InvalidTopicName::TooLong { len: 300 });
        assert_eq!(
            TopicName::new("../../etc").unwrap_err(),
            InvalidTopicName::Character { found: '/', index: 2 }
        );
        assert_eq!(TopicName::new("..").unwrap_err(), InvalidTopicName::Dots);
        assert_eq!(TopicName::new("été").unwrap_err(), InvalidTopicName::Character { found: 'é', index: 0 });
        assert!(TopicName::new(&"a".repeat(249)).is_ok());
        assert!(TopicName::new("orders.v1_new-2").is_ok());
    }

    #[test]
    fn offsets_end_where_kafka_ends() {
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset(5).checked_add(3), Some(Offset(8)));
        assert_eq!(Offset(5).since(Offset(7)), 0);
    }

    proptest! {
        #[test]
        fn topic_id_survives_text(id: [u8; 16]) {
            let id = TopicId(id);
            prop_assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
            prop_assert_eq!(id.to_string().to_uppercase().parse::<TopicId>(), Ok(id));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            let _ = text.parse::<TopicId>();
            let _ = TopicName::new(&text);
        }
    }
}
