//! Deterministic simulation of whole brokers, one thread, one seed.
