//! How much a broker may send before the consumer has taken what came: arithmetic alone.
//!
//! The bytes that a consumer may hold are shared out evenly among its subscriptions. At any moment what it holds, and
//! the credit that is out, together stay within them, but for what a last batch overdraws, and for the moment in
//! which there come to be more subscriptions than before.

/// The credit of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credit {
    /// Given, and not used up by batches that came; below zero by what the last one was larger.
    outstanding: i64,
}

/// What decides about more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// What a consumer may hold, in bytes.
    pub(super) total: usize,
    /// What it holds.
    pub(super) held: usize,
    /// What is outstanding to its other subscriptions.
    pub(super) elsewhere: usize,
    /// How many subscriptions there are, this one counted.
    pub(super) subscriptions: usize,
}

impl Room {
    /// What one subscription may have at most.
    pub(super) fn share(&self) -> usize {
        (self.total / self.subscriptions.max(1)).max(1)
    }

    /// Less is not worth a request.
    fn step(&self) -> usize {
        self.share().div_ceil(4)
    }
}

impl Credit {
    /// None is given yet.
    pub(super) const NONE: Credit = Credit { outstanding: 0 };

    /// What may still come.
    pub(super) fn outstanding(self) -> usize {
        usize::try_from(self.outstanding).unwrap_or(0)
    }

    /// What to give now, if it is worth a request.
    pub(super) fn wanted(self, room: &Room) -> Option<u32> {
        let free = room.total.saturating_sub(room.held).saturating_sub(room.elsewhere);
        let target = signed(room.share().min(free));
        let more = target - self.outstanding;
        let is_worth_it = target > 0 && more >= signed(room.step());
        is_worth_it.then(|| u32::try_from(more).unwrap_or(u32::MAX))
    }

    /// How little must be held for [`Credit::wanted`] to say something. `None` if that is not what it waits for.
    pub(super) fn wanted_below(self, room: &Room) -> Option<usize> {
        let lacks_room = self.outstanding + signed(room.step()) <= signed(room.share());
        let must_be_free = usize::try_from(self.outstanding + signed(room.step())).unwrap_or(0).max(1);
        lacks_room.then(|| room.total.saturating_sub(room.elsewhere).saturating_sub(must_be_free))
    }

    pub(super) fn give(&mut self, bytes: u32) {
        self.outstanding += i64::from(bytes);
    }

    pub(super) fn use_up(&mut self, bytes: usize) {
        self.outstanding -= signed(bytes);
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn credit_is_given_in_steps_of_a_quarter() {
        let room = |held| Room { total: 1000, held, elsewhere: 0, subscriptions: 1 };
        let mut credit = Credit::NONE;
        assert_eq!(credit.wanted(&room(0)), Some(1000));
        credit.give(1000);
        assert_eq!(credit.wanted(&room(0)), None);
        credit.use_up(200);
        assert_eq!(credit.wanted(&room(0)), None, "200 are not worth it");
        credit.use_up(100);
        assert_eq!(credit.wanted(&room(300)), None, "what came is still held");
        assert_eq!(credit.wanted_below(&room(300)), Some(50));
        assert_eq!(credit.wanted(&room(50)), Some(250));
    }

    #[test]
    fn what_was_overdrawn_is_given_on_top() {
        let room = Room { total: 1000, held: 0, elsewhere: 0, subscriptions: 1 };
        let mut credit = Credit::NONE;
        credit.give(1000);
        credit.use_up(1500);
        assert_eq!(credit.wanted(&room), Some(1500));
    }

    /// What the core does when it looks: gives what is wanted, and asks to be told when less is held.
    fn look(credits: &mut [Credit], total: usize, held: usize) -> Option<usize> {
        let mut below = None;
        for place in 0..credits.len() {
            let all: usize = credits.iter().map(|credit| credit.outstanding()).sum();
            let elsewhere = all - credits[place].outstanding();
            let room = Room { total, held, elsewhere, subscriptions: credits.len() };
            match credits[place].wanted(&room) {
                Some(more) => credits[place].give(more),
                None => below = below.max(credits[place].wanted_below(&room)),
            }
        }
        below
    }

    proptest! {
        #[test]
        fn bytes_are_bounded_and_who_takes_all_never_runs_dry(
            total in 5..5_000_usize,
            count in 1..5_usize,
            steps in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 1..3_000_usize), 1..200),
        ) {
            let mut credits = vec![Credit::NONE; count];
            let mut held = 0_usize;
            let mut below = look(&mut credits, total, held);
            for (which, comes, bytes) in steps {
                if comes {
                    let credit = &mut credits[which.index(count)];
                    let comes = bytes.min(credit.outstanding());
                    credit.use_up(comes);
                    held += comes;
                } else {
                    held -= bytes.min(held);
                }
                if comes || below.is_some_and(|below| held <= below) {
                    below = look(&mut credits, total, held);
                }
                let out: usize = credits.iter().map(|credit| credit.outstanding()).sum();
                prop_assert!(held + out <= total, "{held} held and {out} outstanding of {total}");
                let all_may_send = credits.iter().all(|credit| credit.outstanding() > 0);
                prop_assert!(held > 0 || all_may_send, "nothing is held, and not all may send: {credits:?}");
            }
        }
    }
}
