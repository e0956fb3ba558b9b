//! The broker: shards, the native listener, partitions.
