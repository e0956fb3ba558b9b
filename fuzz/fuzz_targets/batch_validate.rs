//! Record batches as a broker proves them.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::batch_validate);
