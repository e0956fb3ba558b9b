//! The ring of one shard for files and sockets, and the task that waits for it.
//!
//! What is in flight is owned by the ring's slots, whatever becomes of the future that asked. Sockets are polled, not
//! read, so that no memory is lent for them.
//!
//! The kernel does not interrupt a shard that is running to tell it of a completion: it does so when the shard next
//! calls it, or says in the ring that there is something to call for. Before a shard sleeps it has completions counted
//! into an eventfd, which glommio watches, and looks once more; so none goes unnoticed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::io::PollableFd;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use rustix::event::EventfdFlags;

use super::readiness::{After, EVENTS, Polls, Readiness};
use super::slots::{Hold, Landing, Memory, Slots};
use super::{timer, turn};
use crate::sync::Notify;
use crate::timer::Instant;

/// Room for submissions of one call into the kernel; a full queue is handed over and goes on.
const SUBMISSIONS: u32 = 256;

/// Room for completions; the kernel keeps what does not fit until there is room.
const COMPLETIONS: u32 = 4096;

/// Threads of the kernel that may wait for files on this thread's behalf, where a file does not take an operation of
/// this ring at once: a write that makes it longer, a flush, an allocation. Such waits are mostly for one commit of the
/// file system's journal, so that many at once end together. Unless told, the kernel goes by the entries of the first
/// ring that the thread made; on the shard that starts first that is glommio's probe of the kernel, with one entry.
const WORKERS: u32 = 32;

/// How long to look for nothing but completions here, and not for timers and for what other shards have sent. A look at
/// those takes several calls into the kernel.
const LOOK_AFTER: Duration = Duration::from_micros(50);

/// The same where there are no other shards.
const LOOK_AFTER_ALONE: Duration = Duration::from_micros(500);

/// How many times longer to look for completions while the kernel works on a file, which soon comes to an end, than
/// while peers are silent, which may last. Enough for a small durable write.
const SPINS_FOR_FILES: u32 = 4;

/// Marks what the kernel says of a poll; the other bits are its number.
const OF_POLL: u64 = 1 << 63;

/// What nobody waits for.
const UNHEARD: u64 = u64::MAX;

pub(super) struct Ring {
    uring: RefCell<IoUring>,
    slots: RefCell<Slots>,
    polls: Polls,
    /// Rings when an operation goes into flight.
    work: Notify,
    /// Rings when the last one has landed.
    idle: Notify,
    /// How long to look for news of sockets, since anything last happened, before sleeping.
    spin: Duration,
    /// How long to look here alone.
    look_after: Duration,
    /// When an operation was last submitted or reaped.
    touched: Cell<Instant>,
}

impl Ring {
    pub(super) fn new(spin: Duration, shards: u16) -> io::Result<Rc<Self>> {
        let uring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .build(SUBMISSIONS)?;
        // The second number, for what is no file, stays as it is.
        uring.submitter().register_iowq_max_workers(&mut [WORKERS, 0])?;
        Ok(Rc::new(Self {
            uring: RefCell::new(uring),
            slots: RefCell::default(),
            polls: Polls::default(),
            work: Notify::new(),
            idle: Notify::new(),
            spin,
            look_after: if shards > 1 { LOOK_AFTER } else { LOOK_AFTER_ALONE },
            touched: Cell::new(timer::now()),
        }))
    }

    /// Hands an operation to the kernel at once.
    ///
    /// # Safety
    ///
    /// Every address in `entry` lies in `hold.memory`, a target is written within its capacity, and the
    /// descriptor is `hold.file`.
    #[expect(unsafe_code, reason = "the kernel works on memory it is given by address")]
    pub(super) unsafe fn submit(self: &Rc<Self>, entry: squeue::Entry, hold: Hold) -> Operation {
        let slot = self.slots.borrow_mut().take(hold);
        // SAFETY: what the entry points to stays in its slot until its completion is reaped.
        unsafe { self.push(&entry.user_data(slot as u64)) };
        self.touched.set(timer::now());
        self.work.notify_all();
        Operation { ring: self.clone(), slot: Some(slot) }
    }

    /// Has the kernel tell of a socket's readiness for as long as the answer lives.
    pub(super) fn watch(self: &Rc<Self>, descriptor: RawFd) -> Watch {
        let readiness = Readiness::new(descriptor);
        let number = self.polls.add(readiness.clone());
        self.poll(number, &readiness);
        self.work.notify_all();
        Watch { ring: self.clone(), number, readiness }
    }

    fn poll(&self, number: usize, readiness: &Readiness) {
        let events = u32::from(EVENTS.bits());
        let entry = opcode::PollAdd::new(types::Fd(readiness.descriptor), events).multi(true).build();
        #[expect(unsafe_code, reason = "entries of every kind are pushed in the same way")]
        // SAFETY: a poll points to no memory.
        unsafe {
            self.push(&entry.user_data(OF_POLL | number as u64));
        }
    }

    /// By a cancellation: a removal leaves a poll as it is for which the kernel has news that it has not told yet.
    fn end_poll(&self, number: usize) {
        let entry = opcode::AsyncCancel::new(OF_POLL | number as u64).build();
        #[expect(unsafe_code, reason = "entries of every kind are pushed in the same way")]
        // SAFETY: it points to no memory.
        unsafe {
            self.push(&entry.user_data(UNHEARD));
        }
    }

    /// # Safety
    ///
    /// What the entry points to stays where it is until its completion is reaped.
    #[expect(unsafe_code, reason = "the kernel works on memory it is given by address")]
    unsafe fn push(&self, entry: &squeue::Entry) {
        loop {
            // SAFETY: as the caller says.
            let pushed = unsafe { self.uring.borrow_mut().submission().push(entry) };
            self.hand_over();
            if pushed.is_ok() {
                return;
            }
        }
    }

    /// Gives the kernel what was pushed. That it lacks memory or room for completions passes; any other
    /// refusal means the ring is broken.
    fn hand_over(&self) {
        loop {
            let handed_over = self.uring.borrow().submit();
            match handed_over {
                Ok(_) if self.uring.borrow_mut().submission().is_empty() => return,
                Ok(_) => {}
                Err(error) if is_passing(&error) => {
                    self.land_completions();
                }
                Err(error) => panic!("the shard's ring is broken: {error}"),
            }
        }
    }

    /// Takes every completion there is and says how many there were. Costs next to nothing if there is none.
    pub(super) fn reap(&self) -> usize {
        let mut reaped = self.land_completions();
        while self.kernel_has_more() {
            self.hand_over();
            reaped += self.land_completions();
        }
        if reaped > 0 {
            self.touched.set(timer::now());
        }
        reaped
    }

    /// Whether completions wait in the kernel for a call.
    fn kernel_has_more(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        let submission = uring.submission();
        submission.taskrun() || submission.cq_overflow()
    }

    fn land_completions(&self) -> usize {
        let mut landed = 0;
        while let Some(completion) = self.next_completion() {
            landed += 1;
            match completion.user_data() {
                UNHEARD => {}
                poll if poll & OF_POLL != 0 => self.land_poll(poll ^ OF_POLL, &completion),
                slot => self.land_operation(slot, completion.result()),
            }
        }
        if landed > 0 && self.in_flight() == 0 {
            self.idle.notify_all();
        }
        landed
    }

    fn land_operation(&self, slot: u64, result: i32) {
        let slot = usize::try_from(slot).expect("a number of a slot");
        let landing = self.slots.borrow_mut().land(slot, result);
        match landing {
            Landing::Wake(Some(waker)) => waker.wake(),
            Landing::Wake(None) => {}
            Landing::Drop(hold) => drop(hold),
        }
    }

    fn land_poll(&self, number: u64, completion: &cqueue::Entry) {
        let number = usize::try_from(number).expect("a number of a poll");
        match self.polls.land(number, completion.result(), cqueue::more(completion.flags())) {
            After::Nothing => {}
            After::PollAgain(readiness) => self.poll(number, &readiness),
        }
    }

    fn next_completion(&self) -> Option<cqueue::Entry> {
        self.uring.borrow_mut().completion().next()
    }

    fn in_flight(&self) -> usize {
        self.slots.borrow().in_flight() + self.polls.in_flight()
    }

    /// Ends every poll and waits until nothing is in flight.
    pub(super) async fn drained(&self) {
        self.end_polls();
        while self.in_flight() > 0 {
            self.idle.wait().await;
        }
    }

    /// Reaps for as long as it is polled; one task of the shard does nothing else.
    pub(super) async fn drive(self: Rc<Self>, completions: PollableFd<OwnedFd>) {
        loop {
            // Who never sleeps looks on here even if nothing is in flight. The executor can do so by itself, but was
            // met spinning for ever while an answer of another thread was there.
            while self.in_flight() == 0 && self.spin < Duration::MAX {
                self.work.wait().await;
            }
            if self.reap() > 0 {
                continue;
            }
            if timer::now() - self.touched.get() < self.patience() {
                // The kernel's own work on this CPU goes first, as completing writes may be a part of it: the scheduler
                // would else have it wait for this thread until its next tick.
                std::thread::yield_now();
                turn::spin_once(self.look_after).await;
                continue;
            }
            self.uring.borrow_mut().completion().enable_eventfd();
            // The kernel counts after it has completed: either it sees that it is to count, or this look sees what it
            // completed.
            fence(Ordering::SeqCst);
            if self.reap() == 0 {
                let readable = completions.readable().await;
                turn::looked();
                readable.expect("an eventfd can be watched for as long as its executor lives");
            }
            self.uring.borrow_mut().completion().disable_eventfd();
            // Empty if what it counted was reaped by a look ahead of it.
            let _ = rustix::io::read(completions.get_ref(), &mut [0; 8]);
        }
    }

    /// How long to look before sleeping.
    fn patience(&self) -> Duration {
        let for_file = self.slots.borrow().in_flight() > 0;
        if for_file { self.spin.saturating_mul(SPINS_FOR_FILES) } else { self.spin }
    }

    fn end_polls(&self) {
        for (number, readiness) in self.polls.watched() {
            if self.polls.unwatch(number, &readiness) {
                self.end_poll(number);
            }
        }
    }

    /// What counts the completions while the shard sleeps.
    pub(super) fn count_completions(&self) -> io::Result<PollableFd<OwnedFd>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = rustix::event::eventfd(0, flags)?;
        self.uring.borrow().submitter().register_eventfd(eventfd.as_raw_fd())?;
        self.uring.borrow_mut().completion().disable_eventfd();
        PollableFd::new(eventfd).map_err(io::Error::from)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// The kernel works on memory of the slots until every operation has landed, so the ring waits for them.
impl Drop for Ring {
    fn drop(&mut self) {
        self.end_polls();
        while self.in_flight() > 0 {
            let waited = self.uring.borrow().submit_and_wait(1);
            if let Err(error) = waited
                && !is_passing(&error)
            {
                // Memory the kernel may still write to is never given back.
                std::mem::forget(self.slots.take());
                return;
            }
            self.reap();
        }
    }
}

/// A socket whose readiness the kernel tells, until this is dropped.
pub(super) struct Watch {
    ring: Rc<Ring>,
    number: usize,
    readiness: Rc<Readiness>,
}

impl Watch {
    pub(super) fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Takes in what the kernel has to tell of anything.
    pub(super) fn look(&self) {
        self.ring.reap();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.ring.polls.unwatch(self.number, &self.readiness) {
            self.ring.end_poll(self.number);
        }
    }
}

/// An operation in flight. Dropped early it still happens, unheard.
pub(super) struct Operation {
    ring: Rc<Ring>,
    /// `None` once the answer was taken.
    slot: Option<usize>,
}

impl Future for Operation {
    /// What the kernel answered, and the memory back.
    type Output = (io::Result<u32>, Memory);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let slot = self.slot.expect("an operation is not polled after its answer");
        let collected = self.ring.slots.borrow_mut().collect(slot, context.waker());
        let Some((hold, result)) = collected else {
            return Poll::Pending;
        };
        self.slot = None;
        let answer = u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Poll::Ready((answer, hold.memory))
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let released = self.ring.slots.borrow_mut().abandon(slot);
            drop(released);
        }
    }
}
