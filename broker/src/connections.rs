//! The connections of one shard: counted, watched for stalls, and told when the shard stops.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corrente_runtime::sync::Notify;
use corrente_runtime::timer::{Instant, now, sleep, timeout};

use crate::connection::Connection;

/// Every connection that this shard serves.
#[derive(Default)]
pub struct Connections {
    live: RefCell<BTreeMap<u64, Rc<Connection>>>,
    next: Cell<u64>,
    changed: Notify,
}

/// A connection's entry; dropping it takes the connection off the list.
pub struct Registered<'a> {
    connections: &'a Connections,
    key: u64,
}

/// How long a connection may stand still in the middle of a frame.
#[derive(Clone, Copy, Debug)]
pub struct StallLimits {
    /// While there is memory for everybody.
    pub usual: Duration,
    /// While others wait for memory.
    pub short_of_memory: Duration,
}

impl Connections {
    /// Lists a connection for as long as the answer lives.
    pub fn register(&self, connection: Rc<Connection>) -> Registered<'_> {
        let key = self.next.get();
        self.next.set(key + 1);
        self.live.borrow_mut().insert(key, connection);
        Registered { connections: self, key }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.live.borrow().len()
    }

    /// Closes connections that have stood still for too long in the middle of a frame, either way:
    /// for they hold memory. When others wait for it, too long is sooner. Runs until it is dropped.
    pub async fn close_stalled(&self, limits: StallLimits, is_short_of_memory: impl Fn() -> bool) {
        let StallLimits { usual, short_of_memory } = limits;
        let mut next_usual = now() + usual / 4;
        loop {
            sleep(short_of_memory.min(usual) / 4).await;
            let now = now();
            let limit = match is_short_of_memory() {
                true => short_of_memory.min(usual),
                false if now < next_usual => continue,
                false => usual,
            };
            next_usual = now + usual / 4;
            for connection in self.live.borrow().values() {
                if connection.stalled_since().is_some_and(|since| since + limit < now) {
                    connection.close_stalled();
                }
            }
        }
    }

    /// Asks every connection to answer what is under way and to end, then waits for them until
    /// `deadline`. Returns how many had not ended by then.
    pub async fn drain(&self, deadline: Instant) -> usize {
        for connection in self.live.borrow().values() {
            connection.start_draining();
        }
        let ended = async {
            while self.count() > 0 {
                self.changed.wait().await;
            }
        };
        // What is left over is reported by its count; the time-out itself says no more.
        let _ = timeout(deadline - now(), ended).await;
        self.count()
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.connections.live.borrow_mut().remove(&self.key);
        self.connections.changed.notify_all();
    }
}
