//! The partitions of a consumer, and which of them want something: what is looked at for each answer must not grow with
//! those that want nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};

use super::partition::{Partition, State};
use crate::core::connection::Destination;

/// Invariants, held by [`Partitions::enter`] and [`Partitions::lies_at`]: `idle` are the places whose state is idle,
/// `done` counts those that are done, and `at` counts for each destination the others that were last seen there.
pub(super) struct Partitions {
    all: Vec<Partition>,
    idle: BTreeSet<usize>,
    done: usize,
    at: BTreeMap<Destination, usize>,
}

impl Partitions {
    /// All of them idle, as they are to begin with.
    pub(super) fn new(all: Vec<Partition>) -> Partitions {
        assert!(all.iter().all(|partition| partition.state() == State::Idle), "partitions begin idle");
        let idle = (0..all.len()).collect();
        Partitions { all, idle, done: 0, at: BTreeMap::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        self.all.iter()
    }

    /// The places of those that are idle.
    pub(super) fn idle(&self) -> Vec<usize> {
        self.idle.iter().copied().collect()
    }

    pub(super) fn are_all_done(&self) -> bool {
        self.done == self.all.len()
    }

    /// How many shards lead those that are not done, as far as is known.
    pub(super) fn destinations(&self) -> usize {
        self.at.len()
    }

    /// Changes the state of one. Done is for good.
    pub(super) fn enter(&mut self, place: usize, state: State) {
        let before = self.all[place].replace_state(state);
        assert!(
            before != State::Done || state == State::Done,
            "partition {place} is done and becomes {state:?}"
        );
        match state {
            State::Idle => self.idle.insert(place),
            _ => self.idle.remove(&place),
        };
        if state == State::Done && before != State::Done {
            self.done += 1;
            self.leave(place);
        }
    }

    /// One that is not done was found at a destination.
    pub(super) fn lies_at(&mut self, place: usize, destination: Destination) {
        if self.all[place].destination != Some(destination) {
            self.leave(place);
            self.all[place].destination = Some(destination);
            *self.at.entry(destination).or_default() += 1;
        }
    }

    fn leave(&mut self, place: usize) {
        let Some(destination) = self.all[place].destination.take() else { return };
        let count = self.at.get_mut(&destination).expect("it is counted there");
        *count -= 1;
        if *count == 0 {
            self.at.remove(&destination);
        }
    }
}

impl Index<usize> for Partitions {
    type Output = Partition;

    fn index(&self, place: usize) -> &Partition {
        &self.all[place]
    }
}

impl IndexMut<usize> for Partitions {
    fn index_mut(&mut self, place: usize) -> &mut Partition {
        &mut self.all[place]
    }
}
