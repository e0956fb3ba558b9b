//! A stream of frames, cut into headers and bodies.

#![no_main]

corrente_fuzz::target!(corrente_protocol::fuzz::frame);
