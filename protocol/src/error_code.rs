//! Every reason a broker gives for not doing what it was asked, as one number on the wire.
//!
//! A number, once given out, keeps its meaning for ever. A peer that meets a number it does not know keeps it as
//! [`ErrorCode::Unknown`] and treats it as final.

use std::fmt;

macro_rules! error_codes {
    ($($name:ident = $number:literal, $retryable:literal, $meaning:literal;)*) => {
        /// Why a request, or a part of it, was refused. [`ErrorCode::None`] says it was not.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $(
                #[doc = $meaning]
                $name,
            )*
            /// A number that this build does not know.
            Unknown(u16),
        }

        impl ErrorCode {
            /// Every code this build knows, by number.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name),*];

            /// The number on the wire.
            pub const fn code(self) -> u16 {
                match self {
                    $(ErrorCode::$name => $number,)*
                    ErrorCode::Unknown(number) => number,
                }
            }

            /// The code with this number.
            pub const fn from_code(number: u16) -> ErrorCode {
                match number {
                    $($number => ErrorCode::$name,)*
                    _ => ErrorCode::Unknown(number),
                }
            }

            /// The code's name, as in this enum.
            pub const fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($name),)*
                    ErrorCode::Unknown(_) => "Unknown",
                }
            }

            /// What the code means, as a sentence without a full stop.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => $meaning,)*
                    ErrorCode::Unknown(_) => "an error this build does not know",
                }
            }

            /// Whether the same request may succeed later, or at another broker or shard, unchanged.
            pub const fn is_retryable(self) -> bool {
                match self {
                    $(ErrorCode::$name => $retryable,)*
                    ErrorCode::Unknown(_) => false,
                }
            }
        }
    };
}

error_codes! {
    None = 0, false, "no error";
    UnknownTopicOrPartition = 1, true, "this broker does not know the topic or the partition";
    OffsetOutOfRange = 2, false, "the offset is below the log start offset or above the log end offset";
    CorruptMessage = 3, true, "a record batch arrived damaged: its length or its checksum is wrong";
    MessageTooLarge = 4, false, "a record batch is larger than the topic or the broker allows";
    InvalidTopicName = 5, false, "the name cannot be a topic's";
    TopicAlreadyExists = 6, false, "there is a topic of this name already";
    InvalidPartitions = 7, false, "the number of partitions is not possible";
    InvalidReplicationFactor = 8, false, "the number of replicas is not possible";
    InvalidConfig = 9, false, "a configuration key is unknown or its value is not possible";
    InvalidRequest = 10, false, "the request could not be decoded or contradicts itself";
    UnsupportedVersion = 11, false, "this broker does not serve that version";
    UnsupportedApi = 12, false, "this broker does not serve that api";
    NotLeader = 13, true, "this broker does not lead the partition; ask for metadata again";
    LeaderNotAvailable = 14, true, "the partition has no leader at present";
    RequestTimedOut = 15, true, "the deadline passed first; the request may still have been carried out";
    StorageError = 16, true, "the disk of this broker failed";
    LogFenced = 17, true, "the log on this broker takes no more appends after a failed write";
    Busy = 18, true, "the broker has no room for the request at present";
    ShuttingDown = 19, true, "the broker is going down";
    InvalidRecord = 20, false, "a record batch is intact and yet not acceptable";
    UnexpectedEndOffset = 21, false, "the log does not end where a conditional append expected it to";
    Damaged = 22, false, "the records at this offset are damaged and there is no copy to mend them from";
    NotController = 23, true, "this broker is not the controller";
    InvalidDurability = 24, false, "the durability asked for cannot be reached on this topic";
    PolicyViolation = 25, false, "the topic's or the cluster's policy does not allow it";
    FencedLeaderEpoch = 26, true, "the leader epoch in the request is older than the broker's";
    UnknownLeaderEpoch = 27, true, "the leader epoch in the request is newer than the broker's";
    AuthenticationRequired = 28, false, "the connection has to authenticate first";
    NotAuthorized = 29, false, "the connection's principal may not do this";
    Internal = 30, false, "the broker broke a rule of its own";
    DiskFull = 31, true, "the data directory has less free space than its reserve";
    OutOfOrderSequence = 32, false, "a batch of an idempotent producer does not go on where the last one ended";
    InvalidProducerEpoch = 33, false, "a batch of an idempotent producer has an earlier epoch than the last one";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorCode::Unknown(number) => write!(f, "error code {number}"),
            known => f.write_str(known.meaning()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_survives() {
        for number in 0..=u16::MAX {
            assert_eq!(ErrorCode::from_code(number).code(), number);
        }
    }

    #[test]
    fn the_table_has_no_gaps() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.code()), index, "{code:?}");
        }
    }
}
