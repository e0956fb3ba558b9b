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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use futures_util::FutureExt;
    use futures_util::task::noop_waker_ref;

    use super::*;

    const READABLE: i32 = PollFlags::IN.bits() as i32;
    const WRITABLE: i32 = PollFlags::OUT.bits() as i32;
    const HALF_CLOSED: i32 = PollFlags::IN.union(PollFlags::RDHUP).bits() as i32;
    const HUNG_UP: i32 = PollFlags::HUP.bits() as i32;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn watched(polls: &Polls) -> (usize, Rc<Readiness>) {
        let readiness = Readiness::new(7);
        (polls.add(readiness.clone()), readiness)
    }

    fn is_ready(readiness: &Readiness, direction: &Direction) -> bool {
        readiness.ready(direction).now_or_never().is_some()
    }

    #[test]
    fn news_lasts_until_a_call_finds_no_more() {
        let polls = Polls::default();
        let (number, readiness) = watched(&polls);
        assert!(!is_ready(&readiness, &readiness.reading));
        polls.land(number, READABLE, true);
        assert!(is_ready(&readiness, &readiness.reading) && !is_ready(&readiness, &readiness.writing));
        readiness.reading.exhausted();
        assert!(!is_ready(&readiness, &readiness.reading));
        polls.land(number, WRITABLE, true);
        assert!(!is_ready(&readiness, &readiness.reading) && is_ready(&readiness, &readiness.writing));
    }

    #[test]
    fn the_end_of_a_peer_is_ready_for_ever_and_only_for_what_would_no_longer_block() {
        let polls = Polls::default();
        let (number, readiness) = watched(&polls);
        polls.land(number, HALF_CLOSED, true);
        readiness.reading.exhausted();
        assert!(is_ready(&readiness, &readiness.reading), "there is an end to be read");
        assert!(!is_ready(&readiness, &readiness.writing), "a half-closed peer may still have no room");
        polls.land(number, HUNG_UP, true);
        readiness.writing.exhausted();
        assert!(is_ready(&readiness, &readiness.writing));
    }

    #[test]
    fn a_poll_that_the_kernel_ended_is_made_again_while_it_is_wanted() {
        let polls = Polls::default();
        let (number, readiness) = watched(&polls);
        assert!(matches!(polls.land(number, READABLE, false), After::PollAgain(_)));
        assert!(is_ready(&readiness, &readiness.reading));
        assert!(polls.unwatch(number, &readiness));
        assert!(matches!(polls.land(number, READABLE, true), After::Nothing));
        assert_eq!(polls.in_flight(), 1, "its end has not been told yet");
        assert!(matches!(polls.land(number, -libc::ECANCELED, false), After::Nothing));
        assert_eq!(polls.in_flight(), 0);
    }

    #[test]
    fn a_number_is_used_again_and_its_earlier_owner_no_longer_ends_it() {
        let polls = Polls::default();
        let (number, first) = watched(&polls);
        polls.land(number, -libc::ENOMEM, false);
        let error = first.ready(&first.reading).now_or_never().expect("told at once").expect_err("broken");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        let (again, _second) = watched(&polls);
        assert_eq!(again, number);
        assert!(!polls.unwatch(number, &first));
        assert_eq!(polls.watched().len(), 1);
    }

    #[test]
    fn who_waits_is_not_forgotten_for_another() {
        let readiness = Readiness::new(7);
        let mut first = pin!(readiness.ready(&readiness.reading));
        let count = Arc::new(Count::default());
        assert!(first.as_mut().poll(&mut Context::from_waker(&Waker::from(count.clone()))).is_pending());
        let mut second = pin!(readiness.ready(&readiness.reading));
        assert!(second.as_mut().poll(&mut Context::from_waker(noop_waker_ref())).is_pending());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "the first asks again");
    }
}
