//! One replica of one partition: it is told what happened to the log and says what follows from it.
//!
//! Owns the high watermark, the leader epoch and the question "may this be acknowledged". Never touches the
//! log, waits, or sends: whoever drives it does, and tells it.
//!
//! The high watermark is the least *flushed* end over the in-sync replicas, and moves only while there are
//! at least `min_insync` of them. It never goes back.

use corrente_protocol::frame::Durability;
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset};

use crate::isr::{Isr, Progress};
use crate::leader_epoch::LeaderEpochs;

/// What happened to the partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The controller made this replica the leader at `epoch`; its log ends at `log_end`.
    BecomeLeader {
        /// Above every earlier epoch.
        epoch: LeaderEpoch,
        /// The end of its log, exclusive.
        log_end: Offset,
    },
    /// The log took records in memory and ends at `end` now.
    Appended {
        /// The new end, exclusive.
        end: Offset,
    },
    /// Everything below `end` survives a power cut here.
    Flushed {
        /// The new flushed end, exclusive.
        end: Offset,
    },
    /// The log takes no more: a write or a flush failed. For good.
    Fenced {
        /// Why, as one line.
        reason: String,
    },
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// The high watermark advanced to here: wake who waits for it.
    pub high_watermark: Option<Offset>,
    /// Leadership ended: answer everything that waits for more than it has with an error.
    pub leadership_ended: bool,
}

/// What the replica is at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nobody told it yet.
    Unassigned,
    /// It leads.
    Leader {
        /// Under this epoch.
        epoch: LeaderEpoch,
    },
    /// Its log failed; it never serves again in this process.
    Fenced {
        /// Why, as one line.
        reason: String,
    },
}

/// The machine of one replica.
///
/// Invariants: `high_watermark <= flushed <= end` of this member; none of the three goes back.
#[derive(Clone, Debug)]
pub struct Replica {
    me: NodeId,
    min_insync: usize,
    role: Role,
    isr: Isr,
    epochs: LeaderEpochs,
    high_watermark: Offset,
    last_step_ns: u64,
}

impl Replica {
    /// The replica on node `me`, alone in its ISR, with a log that was recovered up to `log_end`: whatever
    /// recovery found is on the disk. `epochs` is what recovery read from the batch headers.
    ///
    /// It serves nothing before [`Event::BecomeLeader`].
    pub fn new(me: NodeId, min_insync: usize, epochs: LeaderEpochs, log_end: Offset) -> Self {
        assert!(min_insync >= 1, "min.insync.replicas is at least 1, not {min_insync}");
        let replica = Self {
            me,
            min_insync,
            role: Role::Unassigned,
            isr: Isr::of_one(me, Progress::flushed_to(log_end)),
            epochs,
            high_watermark: Offset(0),
            last_step_ns: 0,
        };
        replica.invariants();
        replica
    }

    /// Takes one event and says what follows. `now_ns` is monotonic.
    ///
    /// After [`Event::Fenced`] every event is ignored: completions of what was in flight may still arrive.
    ///
    /// # Panics
    ///
    /// If an event contradicts an earlier one: offsets, epochs or the time go back, more is flushed than was
    /// appended, or an append comes before there is an epoch to append under.
    pub fn step(&mut self, now_ns: u64, event: Event) -> Actions {
        assert!(self.last_step_ns <= now_ns, "time goes from {} to {now_ns} ns", self.last_step_ns);
        self.last_step_ns = now_ns;
        if let Role::Fenced { .. } = self.role {
            return Actions::default();
        }
        let actions = match event {
            Event::BecomeLeader { epoch, log_end } => self.become_leader(epoch, log_end),
            Event::Appended { end } => self.appended(end),
            Event::Flushed { end } => self.flushed(end),
            Event::Fenced { reason } => self.fenced(reason),
        };
        self.invariants();
        actions
    }

    /// What it is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// The epoch to append under; `None` unless it leads.
    pub fn leader_epoch(&self) -> Option<LeaderEpoch> {
        match self.role {
            Role::Leader { epoch } => Some(epoch),
            Role::Unassigned | Role::Fenced { .. } => None,
        }
    }

    /// Where each epoch began in this log.
    pub fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    /// Readers see what lies below, exclusive.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// One past the last record of this member's log.
    pub fn log_end(&self) -> Offset {
        self.mine().end
    }

    /// One past the last record that survives a power cut here.
    pub fn flushed_end(&self) -> Offset {
        self.mine().flushed
    }

    /// Whether enough replicas are in sync to take appends that ask for all of them.
    pub fn has_enough_in_sync(&self) -> bool {
        self.isr.size() >= self.min_insync
    }

    /// Whether the records below `end` have reached `wanted`. Each level includes those before it:
    ///
    /// - `received`: the leader holds them in memory and may still flush them;
    /// - `leader_flushed`: they survive a power cut on the leader;
    /// - `replicated`: and every in-sync replica holds them, of which there are enough;
    /// - `isr_flushed`: and survive a power cut on any of those: they are below the high watermark.
    pub fn may_ack(&self, end: Offset, wanted: Durability) -> bool {
        match wanted {
            Durability::Received if self.leader_epoch().is_some() => end <= self.log_end(),
            // A log that does not lead, or failed, promises nothing about what is in memory alone.
            Durability::Received | Durability::LeaderFlushed => end <= self.flushed_end(),
            Durability::Replicated => end <= self.replicated_end(),
            Durability::IsrFlushed => end <= self.high_watermark,
        }
    }

    /// The highest level that the records below `end` have reached; `None` if they are not even here.
    pub fn receipt_for(&self, end: Offset) -> Option<Durability> {
        Durability::ALL.into_iter().rev().find(|level| self.may_ack(end, *level))
    }

    /// Panics, with both numbers, if the positions are out of order.
    pub fn invariants(&self) {
        self.isr.invariants();
        let Progress { end, flushed } = self.mine();
        let high_watermark = self.high_watermark;
        assert!(
            high_watermark <= flushed,
            "high watermark {high_watermark} passes the flushed end {flushed}"
        );
        assert!(flushed <= end, "flushed end {flushed} passes the log end {end}");
        if let Some(latest) = self.epochs.latest() {
            assert!(
                latest.start <= end,
                "epoch {} begins at {}, beyond the log end {end}",
                latest.epoch,
                latest.start
            );
        }
    }

    fn become_leader(&mut self, epoch: LeaderEpoch, log_end: Offset) -> Actions {
        let end = self.log_end();
        assert!(end == log_end, "leader at epoch {epoch} is told of log end {log_end}, knows of {end}");
        if let Some(latest) = self.leader_epoch() {
            assert!(latest < epoch, "leader epoch goes from {latest} to {epoch}");
        }
        self.epochs.append(epoch, log_end);
        self.role = Role::Leader { epoch };
        self.advance()
    }

    fn appended(&mut self, end: Offset) -> Actions {
        assert!(self.leader_epoch().is_some(), "appended up to {end} without a leader epoch");
        self.isr.appended(self.me, end);
        Actions::default()
    }

    fn flushed(&mut self, end: Offset) -> Actions {
        self.isr.flushed(self.me, end);
        self.advance()
    }

    fn fenced(&mut self, reason: String) -> Actions {
        let leadership_ended = self.leader_epoch().is_some();
        self.role = Role::Fenced { reason };
        Actions { high_watermark: None, leadership_ended }
    }

    /// Moves the high watermark as far as the in-sync replicas allow.
    fn advance(&mut self) -> Actions {
        if self.leader_epoch().is_none() || !self.has_enough_in_sync() {
            return Actions::default();
        }
        let reached = self.isr.least_flushed();
        if reached <= self.high_watermark {
            return Actions::default();
        }
        self.high_watermark = reached;
        Actions { high_watermark: Some(reached), leadership_ended: false }
    }

    /// One past the last record that every in-sync replica holds and this one flushed.
    fn replicated_end(&self) -> Offset {
        if self.leader_epoch().is_none() || !self.has_enough_in_sync() {
            return self.high_watermark;
        }
        self.isr.least_end().min(self.flushed_end())
    }

    fn mine(&self) -> Progress {
        self.isr.progress(self.me).expect("a replica that leads is in its isr")
    }
}
