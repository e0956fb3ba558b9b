//! The corruption matrix: every kind of damage at every kind of place of a data directory, and what a broker that opens
//! the directory makes of it.
//!
//! A directory is [`grown`] in a simulated world and kept as an [`image`], with a [`map`] of what lies where in its
//! files and every earlier version of its blocks. Each of the [`cases`] is one [`damage`] to that image. The damaged
//! image is put on the disk of a new world, [`look`] opens it as the broker does and reads all there is, and [`judge`]
//! holds what was seen against what was known. The [`tally`] counts.

#![allow(dead_code, reason = "the plain test and the program use a part each")]

pub mod cases;
#[path = "../../common/mod.rs"]
pub mod common;
pub mod damage;
pub mod grown;
pub mod image;
pub mod judge;
pub mod look;
pub mod map;
pub mod tally;
pub mod trial;
