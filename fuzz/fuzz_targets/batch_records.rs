//! Record batches as a client reads them.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::batch_records);
