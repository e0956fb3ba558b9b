//! Which sockets are ready: one multishot poll each on the shard's ring, from the first use to the last.
//!
//! The kernel tells of changes alone, as with edge-triggered epoll. So a socket counts as ready from such news until a
//! call on it says that there is nothing more, and one that its peer has closed is ready for ever.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::event::PollFlags;

/// What every poll asks for; errors and hang-ups are told unasked.
pub(super) const EVENTS: PollFlags = PollFlags::IN.union(PollFlags::OUT).union(PollFlags::RDHUP);

/// What is known of one socket.
pub(super) struct Readiness {
    pub(super) descriptor: RawFd,
    pub(super) reading: Direction,
    pub(super) writing: Direction,
    /// Why the kernel no longer tells.
    broken: Cell<Option<i32>>,
    /// Whether the socket is no longer used, so that its poll is to end.
    unwatched: Cell<bool>,
}

/// Whether one kind of call would do something, and who waits for that.
#[derive(Default)]
pub(super) struct Direction {
    ready: Cell<bool>,
    for_ever: Cell<bool>,
    waiting: Cell<Option<Waker>>,
}

impl Readiness {
    pub(super) fn new(descriptor: RawFd) -> Rc<Self> {
        Rc::new(Self {
            descriptor,
            reading: Direction::default(),
            writing: Direction::default(),
            broken: Cell::new(None),
            unwatched: Cell::new(false),
        })
    }

    /// Waits until a call in this direction would do something. One task waits at a time in each; another that asks
    /// takes its place.
    pub(super) async fn ready(&self, direction: &Direction) -> io::Result<()> {
        poll_fn(|context| self.poll_ready(direction, context)).await
    }

    fn poll_ready(&self, direction: &Direction, context: &Context<'_>) -> Poll<io::Result<()>> {
        if direction.is_ready() {
            return Poll::Ready(Ok(()));
        }
        if let Some(errno) = self.broken.get() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        let earlier = direction.waiting.replace(Some(context.waker().clone()));
        if let Some(earlier) = earlier.filter(|earlier| !earlier.will_wake(context.waker())) {
            earlier.wake();
        }
        Poll::Pending
    }

    fn news(&self, result: i32) {
        match u16::try_from(result).map(PollFlags::from_bits_retain) {
            Ok(news) => {
                self.reading.news(news, PollFlags::IN, PollFlags::RDHUP | PollFlags::HUP);
                self.writing.news(news, PollFlags::OUT, PollFlags::HUP);
            }
            Err(_) => {
                self.broken.set(Some(-result));
                self.reading.wake();
                self.writing.wake();
            }
        }
    }
}

impl Direction {
    pub(super) fn is_ready(&self) -> bool {
        self.ready.get() || self.for_ever.get()
    }

    /// A call has found nothing more, or less than it asked for.
    pub(super) fn exhausted(&self) {
        self.ready.set(false);
    }

    /// After news of `last`, no call would block any more.
    fn news(&self, news: PollFlags, wanted: PollFlags, last: PollFlags) {
        if news.intersects(last) {
            self.for_ever.set(true);
        }
        if news.intersects(wanted | last | PollFlags::ERR) {
            self.ready.set(true);
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

/// The polls of one ring, by number.
///
/// A number is free again once the kernel has said that its poll has ended.
#[derive(Default)]
pub(super) struct Polls {
    places: RefCell<Places>,
}

#[derive(Default)]
struct Places {
    sockets: Vec<Option<Rc<Readiness>>>,
    free: Vec<usize>,
}

/// What is to be done after news of a poll.
pub(super) enum After {
    Nothing,
    /// The kernel has ended it, and it is still wanted.
    PollAgain(Rc<Readiness>),
}

impl Polls {
    pub(super) fn in_flight(&self) -> usize {
        let places = self.places.borrow();
        places.sockets.len() - places.free.len()
    }

    pub(super) fn add(&self, readiness: Rc<Readiness>) -> usize {
        let mut places = self.places.borrow_mut();
        if let Some(number) = places.free.pop() {
            places.sockets[number] = Some(readiness);
            return number;
        }
        places.sockets.push(Some(readiness));
        places.sockets.len() - 1
    }

    /// Notes what the kernel says of a poll; `more` if the poll goes on.
    pub(super) fn land(&self, number: usize, result: i32, more: bool) -> After {
        let readiness = self.places.borrow().sockets[number].clone().expect("news of a poll that is there");
        if !readiness.unwatched.get() {
            readiness.news(result);
        }
        if more {
            return After::Nothing;
        }
        if readiness.unwatched.get() || readiness.broken.get().is_some() {
            let mut places = self.places.borrow_mut();
            places.sockets[number] = None;
            places.free.push(number);
            return After::Nothing;
        }
        After::PollAgain(readiness)
    }

    /// Whether this poll has to be told to end; its socket is used no longer.
    pub(super) fn unwatch(&self, number: usize, readiness: &Rc<Readiness>) -> bool {
        readiness.unwatched.set(true);
        let places = self.places.borrow();
        places.sockets[number].as_ref().is_some_and(|there| Rc::ptr_eq(there, readiness))
    }

    /// Every poll that has not been told to end.
    pub(super) fn watched(&self) -> Vec<(usize, Rc<Readiness>)> {
        let places = self.places.borrow();
        let there = places.sockets.iter().enumerate();
        let there = there.filter_map(|(number, socket)| Some((number, socket.clone()?)));
        there.filter(|(_, socket)| !socket.unwatched.get()).collect()
    }
}
