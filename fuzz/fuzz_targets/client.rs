//! The client's core and a broker that answers as it likes.

#![no_main]

corrente_fuzz::target!(corrente_client::fuzz::client);
