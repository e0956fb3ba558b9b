//! Where operations live while the kernel works on them.
//!
//! A slot owns memory and descriptor of its operation from submission until the kernel has answered
//! and nobody wants the answer any more. Its number names the operation in the ring.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;

use crate::buffer::AlignedBuf;

/// What the kernel may touch while an operation is in flight.
pub(super) struct Hold {
    /// A descriptor closed before the kernel took the operation up could by then mean another file.
    pub(super) _file: Arc<OwnedFd>,
    pub(super) memory: Memory,
}

pub(super) enum Memory {
    None,
    /// Read by the kernel.
    Source(#[expect(dead_code, reason = "held for the kernel alone")] Bytes),
    /// Written by the kernel.
    Target(AlignedBuf),
}

struct Slot {
    hold: Hold,
    state: State,
}

enum State {
    /// In flight; the waker is there once somebody has asked.
    Awaited(Option<Waker>),
    /// In flight, and nobody will ask.
    Abandoned,
    /// The kernel has answered.
    Landed(i32),
}

/// Invariants: `free` holds the numbers of the empty slots; `in_flight` counts those awaited or
/// abandoned. What leaves a slot is handed out, never dropped in here: dropping it may close a file.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    in_flight: usize,
}

/// What is to be done when an operation has landed.
pub(super) enum Landing {
    Wake(Option<Waker>),
    Drop(Hold),
}

impl Slots {
    /// How many operations the kernel works on.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Takes a slot for an operation about to be submitted.
    pub(super) fn take(&mut self, hold: Hold) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let before = self.slots[number].replace(Slot { hold, state: State::Awaited(None) });
        assert!(before.is_none(), "slot {number} was on the free list and in use");
        self.in_flight += 1;
        number
    }

    /// Notes the kernel's answer.
    pub(super) fn land(&mut self, number: usize, result: i32) -> Landing {
        self.in_flight -= 1;
        let slot = self.slot(number);
        match std::mem::replace(&mut slot.state, State::Landed(result)) {
            State::Awaited(waker) => Landing::Wake(waker),
            State::Abandoned => Landing::Drop(self.release(number)),
            State::Landed(earlier) => panic!("slot {number} landed with {earlier}, then with {result}"),
        }
    }

    /// The answer and what was held, if the operation has landed; else notes whom to wake.
    pub(super) fn collect(&mut self, number: usize, waker: &Waker) -> Option<(Hold, i32)> {
        match &mut self.slot(number).state {
            State::Awaited(waiting) => {
                if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(waker)) {
                    *waiting = Some(waker.clone());
                }
                None
            }
            State::Landed(result) => {
                let result = *result;
                Some((self.release(number), result))
            }
            State::Abandoned => panic!("slot {number} was abandoned, then asked for"),
        }
    }

    /// Nobody will ask; what the kernel is done with comes back.
    pub(super) fn abandon(&mut self, number: usize) -> Option<Hold> {
        let slot = self.slot(number);
        if let State::Landed(_) = slot.state {
            return Some(self.release(number));
        }
        slot.state = State::Abandoned;
        None
    }

    fn slot(&mut self, number: usize) -> &mut Slot {
        self.slots[number].as_mut().unwrap_or_else(|| panic!("slot {number} is empty"))
    }

    fn release(&mut self, number: usize) -> Hold {
        self.free.push(number);
        let slot = self.slots[number].take();
        slot.unwrap_or_else(|| panic!("slot {number} is empty")).hold
    }
}
