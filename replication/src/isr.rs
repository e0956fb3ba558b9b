//! The in-sync replicas of one partition and how far each of them is.
//!
//! Owns the progress of the members as their leader knows it. Never decides who is a member: the controller
//! does, by compare-and-set, and the leader is told.

use corrente_protocol::ids::{NodeId, Offset};

/// How far one member's log is. Ends are exclusive; `flushed <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// One past the last record that the member holds, in memory at least.
    pub end: Offset,
    /// One past the last record that survives a power cut there.
    pub flushed: Offset,
}

impl Progress {
    /// A log that holds everything below `end`, flushed.
    pub fn flushed_to(end: Offset) -> Self {
        Self { end, flushed: end }
    }
}

/// The members, in replica order, never none. A handful: a scan beats a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isr {
    members: Vec<(NodeId, Progress)>,
}

impl Isr {
    /// An ISR of one.
    pub fn of_one(node: NodeId, progress: Progress) -> Self {
        let isr = Self { members: vec![(node, progress)] };
        isr.invariants();
        isr
    }

    /// How many members there are.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// How far `node` is; `None` if it is no member.
    pub fn progress(&self, node: NodeId) -> Option<Progress> {
        self.members.iter().find(|(member, _)| *member == node).map(|(_, progress)| *progress)
    }

    /// The least log end of all members: every one of them holds what lies below.
    pub fn least_end(&self) -> Offset {
        self.least(|progress| progress.end)
    }

    /// The least flushed end of all members: what lies below survives a power cut on any of them.
    pub fn least_flushed(&self) -> Offset {
        self.least(|progress| progress.flushed)
    }

    /// Notes that `node` holds everything below `end`.
    ///
    /// # Panics
    ///
    /// If `node` is no member, or its end goes back.
    pub fn appended(&mut self, node: NodeId, end: Offset) {
        let progress = self.member_mut(node);
        assert!(progress.end <= end, "log end of node {node} goes from {} to {end}", progress.end);
        progress.end = end;
    }

    /// Notes that `node` flushed everything below `end`.
    ///
    /// # Panics
    ///
    /// If `node` is no member, or its flushed end goes back or passes its log end.
    pub fn flushed(&mut self, node: NodeId, end: Offset) {
        let progress = self.member_mut(node);
        assert!(
            progress.flushed <= end,
            "flushed end of node {node} goes from {} to {end}",
            progress.flushed
        );
        assert!(end <= progress.end, "flushed end {end} of node {node} passes its log end {}", progress.end);
        progress.flushed = end;
    }

    /// Panics, with both numbers, if a member flushed what it does not hold, or is there twice.
    pub fn invariants(&self) {
        assert!(!self.members.is_empty(), "an isr has at least 1 member, this one 0");
        for (place, (node, progress)) in self.members.iter().enumerate() {
            let (flushed, end) = (progress.flushed, progress.end);
            assert!(flushed <= end, "flushed end {flushed} of node {node} passes its log end {end}");
            let earlier = &self.members[..place];
            assert!(earlier.iter().all(|(other, _)| other != node), "node {node} is twice in the isr");
        }
    }

    fn least(&self, position: impl Fn(&Progress) -> Offset) -> Offset {
        self.members.iter().map(|(_, progress)| position(progress)).min().expect("an isr is never empty")
    }

    fn member_mut(&mut self, node: NodeId) -> &mut Progress {
        match self.members.iter_mut().find(|(member, _)| *member == node) {
            Some((_, progress)) => progress,
            None => panic!("node {node} is not in the isr"),
        }
    }
}
