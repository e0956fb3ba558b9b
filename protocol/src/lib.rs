//! Bytes and names of Corrente: record batches, frames, requests and responses, with no I/O.
