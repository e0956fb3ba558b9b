//! What can go wrong with a simulated disk, and the rules by which it does.
//!
//! Decides which operations go wrong and how; what that leaves on the disk is the disk's matter.

use super::{operation::Kind, world::WorldState};
use std::path::{Path, PathBuf};

/// One thing that can go wrong with one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    /// A read of content fails.
    ReadError,
    /// A write fails. Old bytes, new ones or some sectors of each are there.
    WriteError,
    /// A flush fails, also the flush of a durable write. What it was to make durable may be so, may still be
    /// pending, or may be given up for good: then reads find what was there before, and no later flush brings it
    /// back, though it succeeds.
    FlushError,
    /// An operation on names or lengths fails and has changed nothing.
    NameError,
    /// An operation of any kind takes seconds.
    Stall,
    /// Damage: a write is reported done, and durable if that was asked for, and was never made.
    LostWrite,
    /// Damage: a write is reported done and lands at other blocks, of its file or of another that the rule is about.
    MisdirectedWrite,
    /// Damage: one bit of what a read finds is another; the next read may find it right.
    FlippedRead,
    /// Damage: a read finds one block as it was before it was last written; the next read may find it right.
    StaleRead,
}

impl DiskFault {
    fn concerns(self, kind: Kind) -> bool {
        match self {
            Self::ReadError | Self::FlippedRead | Self::StaleRead => kind == Kind::Read,
            Self::WriteError | Self::LostWrite | Self::MisdirectedWrite => {
                matches!(kind, Kind::Write | Kind::DurableWrite)
            }
            Self::FlushError => matches!(kind, Kind::DurableWrite | Kind::Flush),
            Self::NameError => matches!(kind, Kind::Look | Kind::Change),
            Self::Stall => true,
        }
    }
}

/// Which of the operations that a rule is about go wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// Each with this probability.
    Chance(f64),
    /// The n-th from now on, alone: 1 is the next one.
    Nth(u64),
}

/// A rule by which a disk fails its users.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    /// What goes wrong.
    pub fault: DiskFault,
    /// With which operations of its kind.
    pub when: When,
    /// On this path and below it: `/` for the whole disk, a data directory for one drive of several.
    pub below: PathBuf,
}

impl FaultRule {
    /// # Panics
    /// If its probability is none.
    pub(crate) fn assert_valid(&self) {
        if let When::Chance(chance) = self.when {
            assert!((0.0..=1.0).contains(&chance), "{:?} has chance {chance}, not within 0 to 1", self.fault);
        }
    }

    /// Whether it strikes an operation that it is about.
    fn strikes(&mut self, world: &WorldState) -> bool {
        match &mut self.when {
            When::Chance(chance) => world.chance(*chance),
            When::Nth(left) => {
                *left = left.saturating_sub(1);
                *left == 0
            }
        }
    }
}

/// The rules of one disk, and how slow it is.
pub(crate) struct Faults {
    rules: Vec<FaultRule>,
    slowness: u32,
}

impl Faults {
    pub(crate) fn new(rules: Vec<FaultRule>) -> Self {
        Self { rules, slowness: 1 }
    }

    pub(crate) fn add(&mut self, rule: FaultRule) {
        self.rules.push(rule);
    }

    /// From now on everything takes so many times as long.
    pub(crate) fn slow_down(&mut self, factor: u32) {
        self.slowness = factor;
    }

    pub(crate) fn slowness(&self) -> u32 {
        self.slowness
    }

    /// Nothing goes wrong from now on.
    pub(crate) fn heal(&mut self) {
        *self = Self::new(Vec::new());
    }

    /// Whether an operation stalls; asked once when it begins.
    pub(crate) fn stalls(&mut self, world: &WorldState, kind: Kind, path: &Path) -> bool {
        self.strike(world, kind, path, |fault| fault == DiskFault::Stall).is_some()
    }

    /// What goes wrong with an operation otherwise, and where the rule holds that says so; asked once when it
    /// completes.
    pub(crate) fn judge(
        &mut self,
        world: &WorldState,
        kind: Kind,
        path: &Path,
    ) -> Option<(DiskFault, PathBuf)> {
        self.strike(world, kind, path, |fault| fault != DiskFault::Stall)
    }

    /// The first of the rules that strikes wins; all of them count the operation.
    fn strike(
        &mut self,
        world: &WorldState,
        kind: Kind,
        path: &Path,
        about: impl Fn(DiskFault) -> bool,
    ) -> Option<(DiskFault, PathBuf)> {
        let mut struck = None;
        for rule in &mut self.rules {
            let concerned = about(rule.fault) && rule.fault.concerns(kind) && path.starts_with(&rule.below);
            if concerned && rule.strikes(world) {
                struck = struck.or_else(|| Some((rule.fault, rule.below.clone())));
            }
        }
        self.rules.retain(|rule| rule.when != When::Nth(0));
        struck
    }
}
