//! The ring of one shard for file I/O, and the task that waits for it.
//!
//! What is in flight is owned by the ring's slots, whatever becomes of the future that asked. The kernel
//! counts completions into an eventfd, which glommio watches; it stays readable until it is read, and it
//! is read before the ring is looked at, so no completion goes unnoticed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use glommio::io::PollableFd;
use io_uring::{IoUring, squeue};
use rustix::event::EventfdFlags;

use super::slots::{Hold, Landing, Memory, Slots};
use super::{timer, turn};
use crate::sync::Notify;
use crate::timer::Instant;

/// Room for submissions of one call into the kernel; a full queue is handed over and goes on.
const SUBMISSIONS: u32 = 256;

/// Room for completions; the kernel keeps what does not fit until there is room.
const COMPLETIONS: u32 = 4096;

/// How long to look for nothing but completions of files: about one durable write of a fast disk.
const SPIN_WITHOUT_LOOK: Duration = Duration::from_micros(50);

pub(super) struct Ring {
    uring: RefCell<IoUring>,
    slots: RefCell<Slots>,
    /// Rings when an operation goes into flight.
    work: Notify,
    /// Rings when the last one has landed.
    idle: Notify,
    /// How long to look for completions, since anything last happened, before sleeping.
    spin: Duration,
    /// When an operation was last submitted or reaped.
    touched: Cell<Instant>,
}

impl Ring {
    pub(super) fn new(spin: Duration) -> io::Result<Rc<Self>> {
        let uring = IoUring::builder().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)?;
        Ok(Rc::new(Self {
            uring: RefCell::new(uring),
            slots: RefCell::default(),
            work: Notify::new(),
            idle: Notify::new(),
            spin,
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
        let entry = entry.user_data(slot as u64);
        loop {
            // SAFETY: what the entry points to stays in its slot until its completion is reaped.
            let pushed = unsafe { self.uring.borrow_mut().submission().push(&entry) };
            self.hand_over();
            if pushed.is_ok() {
                break;
            }
        }
        self.touched.set(timer::now());
        self.work.notify_all();
        Operation { ring: self.clone(), slot: Some(slot) }
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
                Err(error) => panic!("the ring for files is broken: {error}"),
            }
        }
    }

    /// Takes every completion there is and says how many there were.
    fn reap(&self) -> usize {
        let mut reaped = self.land_completions();
        while self.uring.borrow_mut().submission().cq_overflow() {
            self.hand_over();
            reaped += self.land_completions();
        }
        if reaped > 0 {
            self.touched.set(timer::now());
            if self.in_flight() == 0 {
                self.idle.notify_all();
            }
        }
        reaped
    }

    fn land_completions(&self) -> usize {
        let mut landed = 0;
        while let Some(completion) = self.next_completion() {
            let slot = usize::try_from(completion.user_data()).expect("a number of a slot");
            let landing = self.slots.borrow_mut().land(slot, completion.result());
            match landing {
                Landing::Wake(Some(waker)) => waker.wake(),
                Landing::Wake(None) => {}
                Landing::Drop(hold) => drop(hold),
            }
            landed += 1;
        }
        landed
    }

    fn next_completion(&self) -> Option<io_uring::cqueue::Entry> {
        self.uring.borrow_mut().completion().next()
    }

    fn in_flight(&self) -> usize {
        self.slots.borrow().in_flight()
    }

    /// Waits until nothing is in flight.
    pub(super) async fn drained(&self) {
        while self.in_flight() > 0 {
            self.idle.wait().await;
        }
    }

    /// Reaps for as long as it is polled; one task of the shard does nothing else.
    pub(super) async fn drive(self: Rc<Self>, completions: PollableFd<OwnedFd>) {
        loop {
            while self.in_flight() == 0 {
                self.work.wait().await;
            }
            if self.reap() > 0 {
                continue;
            }
            if timer::now() - self.touched.get() < self.spin {
                turn::spin_once(SPIN_WITHOUT_LOOK).await;
                continue;
            }
            let readable = completions.readable().await;
            turn::looked();
            readable.expect("an eventfd can be watched for as long as its executor lives");
            // Empty if what it counted was reaped by a look ahead of it.
            let _ = rustix::io::read(completions.get_ref(), &mut [0; 8]);
        }
    }

    /// Counts the completions from now on.
    pub(super) fn count_completions(&self) -> io::Result<PollableFd<OwnedFd>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let eventfd = rustix::event::eventfd(0, flags)?;
        self.uring.borrow().submitter().register_eventfd(eventfd.as_raw_fd())?;
        PollableFd::new(eventfd).map_err(io::Error::from)
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// The kernel works on memory of the slots until every operation has landed, so the ring waits for them.
impl Drop for Ring {
    fn drop(&mut self) {
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
