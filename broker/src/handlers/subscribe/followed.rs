//! The partitions of a subscription: how far each was sent, and which has something to send next.

use std::future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use corrente_protocol::api::subscribe::HEARTBEAT_MS;
use corrente_protocol::api::{FetchPartitionResponse, SubscribePartition, SubscribeRequest};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::Offset;
use corrente_protocol::record_batch::headers;
use corrente_runtime::executor::yield_if_needed;
use corrente_runtime::sync::Permit;
use corrente_runtime::timer::{Instant, now, sleep_until};
use futures_util::future::{Either, FutureExt, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::id_of;
use crate::connection::Connection;
use crate::handlers::reading::{self, Position};
use crate::shard::{Place, Shard, Slot};
use crate::subscriptions::Subscription;

/// How often it is looked whether all partitions are still served here. Nobody tells those who wait for their news.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A partition is in `waits`, or in `left_over`, or done, and never in two of these, but while an answer is gathered.
pub struct Followed {
    shard: Rc<Shard>,
    partitions: Vec<FollowedPartition>,
    /// One for each partition that may get news: comes to its place once there is something to read.
    waits: FuturesUnordered<LocalBoxFuture<'static, usize>>,
    /// The place whose turn came when there was no more room for what it has: it is the next.
    left_over: Option<usize>,
    bytes_max: usize,
    heartbeat: Duration,
    /// When the silence becomes too long.
    silent_until: Instant,
    /// When to look again whether all partitions are served.
    look_at: Instant,
}

struct FollowedPartition {
    /// The next record to send.
    position: Position,
    end: Option<Offset>,
}

impl FollowedPartition {
    fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.position.offset >= end)
    }
}

/// What there is to do next.
pub enum Next {
    /// The partition at this place has something to send, or an error to tell.
    News(usize),
    /// Nothing was said for as long as may be.
    Silence,
    /// What was read here is served here no longer.
    Gone(Position),
    /// Nothing more is to be sent.
    End,
}

impl Followed {
    /// All from where they are wanted.
    pub fn new(shard: Rc<Shard>, request: &SubscribeRequest) -> Followed {
        let heartbeat_ms = request.heartbeat_ms.clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
        let heartbeat = Duration::from_millis(heartbeat_ms.into());
        let partition = |part: &SubscribePartition| FollowedPartition {
            position: Position { id: id_of(part), offset: part.offset, leader_epoch: part.leader_epoch },
            end: part.end,
        };
        let followed = Followed {
            bytes_max: (request.max_bytes as usize).min(reading::bytes_affordable(&shard)),
            shard,
            partitions: request.partitions.iter().map(partition).collect(),
            waits: FuturesUnordered::new(),
            left_over: None,
            heartbeat,
            silent_until: now() + heartbeat,
            look_at: now() + LOOK_EVERY,
        };
        for (place, part) in followed.partitions.iter().enumerate().filter(|(_, part)| !part.is_done()) {
            followed.wait(place, part.position.offset);
        }
        followed
    }

    /// Where they are read.
    pub fn shard(&self) -> &Rc<Shard> {
        &self.shard
    }

    /// Whether all partitions are sent to their ends.
    pub fn is_done(&self) -> bool {
        self.waits.is_empty() && self.left_over.is_none()
    }

    /// An answer was made.
    pub fn spoke(&mut self) {
        self.silent_until = now() + self.heartbeat;
    }

    /// Waits for something to do.
    pub async fn next(&mut self, connection: &Connection, subscription: &Subscription) -> Next {
        loop {
            let (adjusted, hurry) = (pin!(subscription.adjusted()), pin!(connection.hurry()));
            if self.is_done() || subscription.ends() || !connection.may_wait() {
                return Next::End;
            }
            if now() >= self.look_at {
                self.look_at = now() + LOOK_EVERY;
                if let Some(gone) = self.gone() {
                    return Next::Gone(gone);
                }
            }
            let alarm = pin!(sleep_until(self.silent_until.min(self.look_at)));
            let rings = select(alarm, select(adjusted, hurry));
            if let Either::Left((place, _)) = select(pin!(self.news(subscription.credit() > 0)), rings).await
            {
                return Next::News(place);
            }
            if now() >= self.silent_until {
                return Next::Silence;
            }
        }
    }

    /// Reads what the partition at `first` has, and those that are ready after it, as far as credit and room reach.
    ///
    /// A log gives at least one batch, however large. Only the first one found may pass the bound so; another that
    /// would is left for the next answer, which then begins with it.
    pub async fn gather(
        &mut self,
        first: usize,
        connection: &Connection,
        subscription: &Subscription,
    ) -> Gathered {
        let bytes_max = self.bytes_max.min(subscription.credit());
        let room = reading::memory_of_answer(&self.shard, bytes_max);
        let of_connection = connection.answer_memory(room).await;
        let of_shard = self.shard.memory.responses.acquire(room).await;
        let mut gathered = Gathered::new([of_connection, of_shard]);
        let mut next = Some(first);
        // Those that were read wait again only afterwards: none stands in an answer twice.
        let mut read = Vec::new();
        while let Some(place) = next {
            let position = self.partitions[place].position;
            let left = bytes_max.saturating_sub(gathered.bytes);
            let found = reading::read(&self.shard, position, Some(left)).await;
            let bytes = reading::bytes_of([&found]);
            if gathered.bytes > 0 && bytes > left {
                self.left_over = Some(place);
                break;
            }
            let from = end_of(&found).unwrap_or(position.offset);
            assert!(bytes == 0 || from > position.offset, "read from {}, up to {from}", position.offset);
            self.partitions[place].position.offset = from;
            // Where nothing was found below the high watermark, nothing will be.
            let news_from = if bytes == 0 { from.max(found.high_watermark) } else { from };
            read.push((place, news_from));
            gathered.add(found, bytes);
            yield_if_needed().await;
            next = if gathered.bytes < bytes_max { self.ready() } else { None };
        }
        read.retain(|(place, _)| !self.partitions[*place].is_done());
        read.into_iter().for_each(|(place, from)| self.wait(place, from));
        subscription.spend(gathered.bytes);
        if gathered.bytes > 0 {
            self.shard.meters.fetched(gathered.bytes);
        }
        gathered.settled()
    }

    /// Waits for what lies beyond `from` in the partition at `place`.
    fn wait(&self, place: usize, from: Offset) {
        let (shard, id) = (self.shard.clone(), self.partitions[place].position.id);
        self.waits.push(reading::news(shard, id, from).map(move |()| place).boxed_local());
    }

    /// The next place that has something to read, for whom may send it. Cancel-safe.
    async fn news(&mut self, may_send: bool) -> usize {
        if !may_send {
            future::pending::<()>().await;
        }
        match self.left_over.take() {
            Some(place) => place,
            None => self.waits.next().await.expect("there are waits, as was checked"),
        }
    }

    /// The same, if there is one now.
    fn ready(&mut self) -> Option<usize> {
        self.left_over.take().or_else(|| self.waits.next().now_or_never().flatten())
    }

    /// A partition that is served no longer.
    fn gone(&self) -> Option<Position> {
        let is_gone = |position: &Position| {
            matches!(self.shard.place(position.id), Place::Here(Slot::Unavailable(_)) | Place::Unknown)
        };
        let followed = self.partitions.iter().filter(|part| !part.is_done()).map(|part| part.position);
        followed.into_iter().find(is_gone)
    }
}

/// One past the last record found.
fn end_of(found: &FetchPartitionResponse) -> Option<Offset> {
    let (_, last) = headers(found.batches.last()?).last()?.ok()?;
    Some(last.end_offset())
}

/// What there is for one answer.
pub struct Gathered {
    /// Those with records or an error.
    pub partitions: Vec<FetchPartitionResponse>,
    /// Whether any has an error.
    pub has_failed: bool,
    /// Of the connection and of the shard.
    pub memory: [Permit; 2],
    bytes: usize,
}

impl Gathered {
    fn new(memory: [Permit; 2]) -> Gathered {
        Gathered { partitions: Vec::new(), bytes: 0, has_failed: false, memory }
    }

    fn add(&mut self, found: FetchPartitionResponse, bytes: usize) {
        let has_failed = found.error != ErrorCode::None;
        self.bytes += bytes;
        self.has_failed |= has_failed;
        if bytes > 0 || has_failed {
            self.partitions.push(found);
        }
    }

    /// With no more memory than the batches take.
    fn settled(mut self) -> Gathered {
        self.memory.iter_mut().for_each(|permit| permit.shrink_to(self.bytes));
        self
    }
}
