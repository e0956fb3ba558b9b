//! The greatest value known for sure at a moment: a position that only ever goes up, as many saw it.

/// Who saw what when, and then the greatest of it up to any moment.
#[derive(Debug, Default)]
pub(crate) struct Frontier {
    /// Until [`Frontier::settle`] in any order; from then on by time, each the greatest so far.
    sightings: Vec<Sighting>,
}

/// A value, since when it is known, and from which operation.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Sighting {
    pub(crate) known_ns: u64,
    pub(crate) value: u64,
    pub(crate) operation: u32,
}

impl Frontier {
    pub(crate) fn see(&mut self, known_ns: u64, value: u64, operation: u32) {
        self.sightings.push(Sighting { known_ns, value, operation });
    }

    /// Makes the frontier ready for questions.
    pub(crate) fn settle(&mut self) {
        self.sightings.sort_unstable();
        let mut kept: Vec<Sighting> = Vec::new();
        for sighting in self.sightings.drain(..) {
            if kept.last().is_none_or(|last| sighting.value > last.value) {
                kept.push(sighting);
            }
        }
        self.sightings = kept;
    }

    /// The greatest value known before this moment.
    pub(crate) fn before(&self, moment_ns: u64) -> Option<Sighting> {
        let known = self.sightings.partition_point(|sighting| sighting.known_ns < moment_ns);
        known.checked_sub(1).map(|last| self.sightings[last])
    }

    /// The greatest value ever.
    pub(crate) fn last(&self) -> Option<Sighting> {
        self.sightings.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_greatest_value_up_to_a_moment() {
        let mut frontier = Frontier::default();
        for (known_ns, value) in [(30, 5), (10, 3), (20, 2), (40, 5), (50, 9)] {
            frontier.see(known_ns, value, 0);
        }
        frontier.settle();
        let known = |moment| frontier.before(moment).map(|sighting| sighting.value);
        assert_eq!(
            [10, 11, 25, 30, 31, 50, 99].map(known),
            [None, Some(3), Some(3), Some(3), Some(5), Some(5), Some(9)]
        );
        assert_eq!(frontier.last().map(|sighting| sighting.value), Some(9));
    }
}
