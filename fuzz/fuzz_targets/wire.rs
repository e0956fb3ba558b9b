//! Values of every kind, read from a body.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::wire);
