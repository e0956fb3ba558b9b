//! What clients of a broker did and saw, in one format for simulated and for real runs, and the judgement over it.
//!
//! A [`History`] is a [`Header`] and a list of [`Operation`]s; as a file it is a JSON object a line
//! (`history/README.md` shows each kind). [`check`] knows nothing of how a run came about: it takes a history and
//! answers with the promises of a log broker that it breaks, each of a [`Class`], the gravest first. Every class has
//! planted histories among the tests that it must catch, and [`model`] makes sound ones that it must let pass.
//!
//! Pure: nothing here reads a clock, opens a file or draws at random but from a seed.

mod check;
mod class;
pub mod content;
mod header;
mod history;
mod line;
pub mod model;
mod operation;
mod recording;

pub use check::{Judged, Verdict, check};
pub use class::{Class, Violation};
pub use content::{Content, RecordId};
pub use header::{Cleanup, Header, Topic, VERSION};
pub use history::{History, ReadError};
pub use operation::{
    Action, LogId, OffsetAnswer, OffsetQuery, Operation, Outcome, Place, Poll, ReadRecord, Refusal,
    RefusalKind, SentRecord,
};
pub use recording::{Begun, Recording};
