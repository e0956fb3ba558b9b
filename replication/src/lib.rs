//! Decisions of replication and metadata as machines without I/O.
