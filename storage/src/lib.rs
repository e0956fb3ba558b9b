//! The partition log on disk: segments, extents, checkpoint, recovery.
