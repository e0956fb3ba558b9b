//! The machines of replication, one story per file.

mod controller;
mod document;
mod image;
mod leader_epoch;
mod records;
mod replica;
mod text;
