//! Which operations go wrong, and how: rules that are matched against every operation, in the order they were added.
//!
//! Decides only; the device does what is decided.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the disk is asked for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Reading a range.
    Read,
    /// Writing a range.
    Write,
    /// Making what was written durable; its range is the whole disk.
    Flush,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Refused with an input/output error, and not done.
    Eio,
    /// A write refused because nothing is left, and not done.
    Enospc,
    /// One bit of what is read or written is another; on the disk too, if it was written.
    FlipBit,
    /// Read from or written to a place this many bytes further on, around the end of the disk.
    Misdirect(u64),
    /// A write or flush answered as done, and not done.
    Lose,
}

/// When a rule applies among the operations that it matches.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Each time.
    Always,
    /// Once: the n-th time, from 1.
    Nth(u64),
    /// Each time with this probability.
    Probability(f64),
}

/// One rule.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// On what.
    pub on: Operation,
    /// What.
    pub effect: Effect,
    /// When.
    pub when: When,
    /// Only where an operation touches this range of the disk; everywhere if it is missing.
    #[serde(default)]
    pub range: Option<Range<u64>>,
}

/// How long an operation takes longer than it would, drawn evenly between two bounds, in microseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Latency {
    /// Reads: from, to.
    pub read_us: (u64, u64),
    /// Writes: from, to.
    pub write_us: (u64, u64),
    /// Flushes: from, to.
    pub flush_us: (u64, u64),
}

/// Why a rule or a latency makes no sense.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Senseless(String);

impl fmt::Display for Senseless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Senseless {}

impl Rule {
    /// Refuses what cannot be.
    pub fn check(&self) -> Result<(), Senseless> {
        use {Effect::*, Operation::*};
        let refuse = |line: String| Err(Senseless(line));
        match (self.on, self.effect) {
            (Read, Enospc | Lose) | (Flush, Enospc | FlipBit | Misdirect(_)) => {
                return refuse(format!("{:?} does not happen to a {:?}", self.effect, self.on));
            }
            _ => {}
        }
        match self.when {
            When::Nth(0) => return refuse("the n-th is counted from 1, got 0".into()),
            When::Probability(p) if !(0.0..=1.0).contains(&p) => {
                return refuse(format!("a probability of {p} is not between 0 and 1"));
            }
            _ => {}
        }
        match &self.range {
            Some(range) if range.is_empty() => refuse(format!("the range {range:?} holds nothing")),
            _ => Ok(()),
        }
    }
}

impl Latency {
    /// Refuses bounds in the wrong order, and waits of more than a minute.
    pub fn check(&self) -> Result<(), Senseless> {
        const MAX_US: u64 = 60_000_000;
        for (from, to) in [self.read_us, self.write_us, self.flush_us] {
            if from > to || to > MAX_US {
                return Err(Senseless(format!("a latency from {from} to {to} us, at most {MAX_US} us")));
            }
        }
        Ok(())
    }

    fn bounds(&self, operation: Operation) -> (u64, u64) {
        match operation {
            Operation::Read => self.read_us,
            Operation::Write => self.write_us,
            Operation::Flush => self.flush_us,
        }
    }
}

/// What is decided for one operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// What goes wrong, if anything.
    pub effect: Option<Effect>,
    /// How long to wait before it is done.
    pub delay: Duration,
}

/// The rules in force, and their chance.
#[derive(Debug)]
pub struct Faults {
    rules: Vec<(Rule, u64)>,
    latency: Latency,
    chance: fastrand::Rng,
    fired: u64,
}

impl Faults {
    /// A disk without faults; chance follows the seed.
    pub fn none(seed: u64) -> Faults {
        let chance = fastrand::Rng::with_seed(seed);
        Faults { rules: Vec::new(), latency: Latency::default(), chance, fired: 0 }
    }

    /// Adds a rule behind those in force.
    pub fn add(&mut self, rule: Rule) -> Result<(), Senseless> {
        rule.check()?;
        self.rules.push((rule, 0));
        Ok(())
    }

    /// Takes all rules and latencies back.
    pub fn clear(&mut self) {
        self.rules.clear();
        self.latency = Latency::default();
    }

    /// Sets how long operations take.
    pub fn slow(&mut self, latency: Latency) -> Result<(), Senseless> {
        latency.check()?;
        self.latency = latency;
        Ok(())
    }

    /// How often a rule applied.
    pub fn fired(&self) -> u64 {
        self.fired
    }

    /// A number below `bound`, for what a fault leaves open.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.chance.u64(..bound)
    }

    /// Decides what happens to an operation. The first rule that applies wins; every rule that matches counts.
    pub fn decide(&mut self, operation: Operation, range: &Range<u64>) -> Decision {
        let mut effect = None;
        for (rule, matched) in &mut self.rules {
            let touches = |of: &Range<u64>| of.start < range.end && range.start < of.end;
            if rule.on != operation || !rule.range.as_ref().is_none_or(touches) {
                continue;
            }
            *matched += 1;
            let applies = match rule.when {
                When::Always => true,
                When::Nth(n) => *matched == n,
                When::Probability(probability) => self.chance.f64() < probability,
            };
            if applies && effect.is_none() {
                effect = Some(rule.effect);
                self.fired += 1;
            }
        }
        let (from, to) = self.latency.bounds(operation);
        Decision { effect, delay: Duration::from_micros(self.chance.u64(from..=to)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(on: Operation, effect: Effect, when: When) -> Rule {
        Rule { on, effect, when, range: None }
    }

    #[test]
    fn the_nth_is_counted_among_what_matches() {
        let mut faults = Faults::none(1);
        let within = Some(1000..2000);
        let third = Rule { range: within, ..rule(Operation::Write, Effect::Eio, When::Nth(2)) };
        faults.add(third).unwrap();
        let mut effect =
            |operation, range: Range<u64>| faults.decide(operation, &range).effect == Some(Effect::Eio);
        assert!(!effect(Operation::Write, 0..1001));
        assert!(!effect(Operation::Write, 0..1000));
        assert!(!effect(Operation::Read, 1000..1001));
        assert!(effect(Operation::Write, 1999..3000));
        assert!(!effect(Operation::Write, 1999..3000));
        assert_eq!(faults.fired(), 1);
    }

    #[test]
    fn chance_follows_the_seed_and_latency_its_bounds() {
        let run = |seed| {
            let mut faults = Faults::none(seed);
            faults.add(rule(Operation::Read, Effect::FlipBit, When::Probability(0.5))).unwrap();
            faults.slow(Latency { read_us: (10, 20), ..Latency::default() }).unwrap();
            (0..100).map(|_| faults.decide(Operation::Read, &(0..1))).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        let hit = run(7).iter().filter(|decision| decision.effect.is_some()).count();
        assert!((20..80).contains(&hit), "{hit} of 100 at one half");
        let in_bounds =
            |decision: &Decision| (10..=20).contains(&u64::try_from(decision.delay.as_micros()).unwrap());
        assert!(run(7).iter().all(in_bounds));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        use {Effect::*, Operation::*, When::*};
        let refused = [
            (Read, Lose, Always, "Lose does not happen to a Read"),
            (Flush, FlipBit, Always, "FlipBit does not happen to a Flush"),
            (Read, Eio, Nth(0), "the n-th is counted from 1, got 0"),
            (Read, Eio, Probability(1.5), "a probability of 1.5 is not between 0 and 1"),
            (Read, Eio, Probability(f64::NAN), "a probability of NaN is not between 0 and 1"),
        ];
        for (on, effect, when, line) in refused {
            assert_eq!(Faults::none(0).add(rule(on, effect, when)).unwrap_err().to_string(), line);
        }
        let latency = Latency { write_us: (5, 4), ..Latency::default() };
        assert!(Faults::none(0).slow(latency).unwrap_err().to_string().contains("from 5 to 4"));
    }
}
