//! What is wrong with the broker's disk for a while, as a seed decides it beforehand.
//!
//! Each kind of trouble has a rate of its own per seed, zero included, so that seeds differ in what they meet.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corrente_runtime::sim::{Disk, DiskFault, FaultRule, When};
use fastrand::Rng;

/// How far the faults of a campaign go.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// The disk may fail and says so: whatever was acknowledged is kept.
    #[default]
    Failing,
    /// The disk also loses, mislays and garbles what it has flushed and says nothing: damage is told of, and never
    /// served.
    Lying,
}

/// With less than this left, a drive is full before the broker has looked again.
const SUDDENLY_FULL: u64 = 2 << 20;

/// What is wrong with a disk for a while.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// For how long before the broker goes down.
    pub lasts: Duration,
    /// It is still there when the broker starts again, which then goes down once more.
    pub outlasts_the_start: bool,
    /// Single operations go wrong.
    pub rules: Vec<FaultRule>,
    /// A drive fails whole.
    pub dead_drive: Option<PathBuf>,
    /// A drive has so many bytes left and no more.
    pub full: Option<(PathBuf, u64)>,
    /// Everything takes so many times as long; 0 and 1 are as usual.
    pub slowness: u32,
    /// Bits that rot in what has been at rest, when the broker goes down.
    pub rotten_bits: u32,
    /// Where they do.
    pub rotten_below: PathBuf,
}

impl Trouble {
    /// Whether nothing is wrong.
    pub fn is_none(&self) -> bool {
        let Trouble { rules, dead_drive, full, slowness, rotten_bits, .. } = self;
        rules.is_empty() && dead_drive.is_none() && full.is_none() && *slowness <= 1 && *rotten_bits == 0
    }

    /// Whether a log may take no more appends after it until the next start, or a start may fail. A drive that fills
    /// up is told in time and refuses appends, unless so little is left that what is under way does not fit.
    pub fn fails_operations(&self) -> bool {
        let sudden = self.full.as_ref().is_some_and(|(_, room)| *room < SUDDENLY_FULL);
        self.dead_drive.is_some() || sudden || self.rules.iter().any(|rule| is_error(rule.fault))
    }

    /// Makes it so.
    pub fn begin(&self, disk: &Disk<'_>) {
        self.rules.iter().for_each(|rule| disk.inject(rule.clone()));
        if let Some(drive) = &self.dead_drive {
            disk.fail_below(drive);
        }
        if let Some((drive, room)) = &self.full {
            disk.set_capacity(drive, Some(disk.used_bytes(drive) + room));
        }
        disk.slow_down(self.slowness.max(1));
    }

    /// Ends it. What has rotted stays so.
    pub fn end(&self, disk: &Disk<'_>) {
        disk.heal();
        if let Some((drive, _)) = &self.full {
            disk.set_capacity(drive, None);
        }
    }
}

fn is_error(fault: DiskFault) -> bool {
    use DiskFault::{FlushError, NameError, ReadError, WriteError};
    matches!(fault, FlushError | NameError | ReadError | WriteError)
}

/// The rates of a seed.
#[derive(Clone, Debug)]
pub struct Inclination {
    drives: Vec<PathBuf>,
    /// Of a sudden end that the machine survives.
    pub kills: f64,
    errors: f64,
    dead_drive: f64,
    full: f64,
    slow: f64,
    stalls: f64,
    damage: f64,
}

impl Inclination {
    /// The inclination of a seed: each rate by itself.
    pub fn draw(rng: &mut Rng, mode: Mode, drives: Vec<PathBuf>) -> Inclination {
        let failing = mode == Mode::Failing;
        let mut rate = |drawn: bool, rates: &[f64]| {
            let rate = rates[rng.usize(..rates.len())];
            if drawn { rate } else { 0.0 }
        };
        Inclination {
            drives,
            kills: rate(true, &[0.0, 0.3, 0.7]),
            errors: rate(failing, &[0.0, 0.3, 0.7, 1.0]),
            dead_drive: rate(failing, &[0.0, 0.0, 0.5]),
            full: rate(failing, &[0.0, 0.0, 0.5]),
            slow: rate(failing, &[0.0, 0.0, 0.5]),
            stalls: rate(failing, &[0.0, 0.0, 0.5]),
            damage: rate(!failing, &[0.3, 0.7, 1.0]),
        }
    }

    /// What precedes one disruption.
    pub fn trouble(&self, rng: &mut Rng) -> Trouble {
        let drive = |rng: &mut Rng| self.drives[rng.usize(..self.drives.len())].clone();
        let mut trouble = Trouble {
            lasts: Duration::from_micros(draw_up_to(rng, &[30_000, 300_000, 3_000_000])),
            ..Trouble::default()
        };
        if rng.f64() < self.errors {
            let place = if rng.bool() { drive(rng) } else { "/".into() };
            trouble.rules.extend(draw_errors(rng, &place));
        }
        if rng.f64() < self.dead_drive {
            trouble.dead_drive = Some(drive(rng));
        }
        if rng.f64() < self.full {
            trouble.full = Some((drive(rng), draw_up_to(rng, &[20_000, 1_000_000, 8_000_000])));
        }
        if rng.f64() < self.slow {
            trouble.slowness = rng.u32(2..100);
        }
        if rng.f64() < self.stalls {
            trouble.rules.push(rule(DiskFault::Stall, draw_when(rng, 1..300, 0.02), Path::new("/")));
        }
        if rng.f64() < self.damage {
            trouble.rotten_bits = [0, 1, 4][rng.usize(..3)];
            // Without a checkpoint much is excused: seldom.
            let place = if rng.u8(..4) == 0 { drive(rng) } else { drive(rng).join("topics") };
            trouble.rules.extend(draw_damage(rng, &place));
            trouble.rotten_below = place;
            // So that what was not written is known to the checkpoint by then.
            trouble.lasts += Duration::from_millis(rng.u64(..3_000));
        }
        trouble.outlasts_the_start = !trouble.is_none() && rng.u8(..4) == 0;
        trouble
    }
}

fn draw_errors(rng: &mut Rng, below: &Path) -> Vec<FaultRule> {
    let faults = [DiskFault::WriteError, DiskFault::FlushError, DiskFault::ReadError, DiskFault::NameError];
    let mut rules = Vec::new();
    for fault in faults {
        if rng.bool() {
            rules.push(rule(fault, draw_when(rng, 1..20, 0.4), below));
        }
    }
    rules
}

/// Little of it, so that most is left to be kept.
fn draw_damage(rng: &mut Rng, below: &Path) -> Vec<FaultRule> {
    let mut rules = Vec::new();
    for fault in [DiskFault::LostWrite, DiskFault::MisdirectedWrite] {
        if rng.bool() {
            rules.push(rule(fault, When::Nth(rng.u64(1..30)), below));
        }
    }
    for fault in [DiskFault::FlippedRead, DiskFault::StaleRead] {
        if rng.bool() {
            rules.push(rule(fault, draw_when(rng, 1..20, 0.05), below));
        }
    }
    rules
}

/// Below one of these.
fn draw_up_to(rng: &mut Rng, ends: &[u64]) -> u64 {
    let end = ends[rng.usize(..ends.len())];
    rng.u64(..end)
}

fn draw_when(rng: &mut Rng, nth: Range<u64>, chance_max: f64) -> When {
    if rng.bool() { When::Nth(rng.u64(nth)) } else { When::Chance(rng.f64() * chance_max) }
}

fn rule(fault: DiskFault, when: When, below: &Path) -> FaultRule {
    FaultRule { fault, when, below: below.to_owned() }
}
