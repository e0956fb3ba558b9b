//! Subscribe: record batches sent the moment the high watermark passes them, as far as there is credit.

use std::future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use corrente_protocol::api::{
    AdjustSubscriptionRequest, AdjustSubscriptionResponse, FetchPartitionResponse, FetchResponse,
    SubscribePartition, SubscribeRequest,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{Offset, TopicPartition};
use corrente_protocol::record_batch::headers;
use corrente_runtime::executor::spawn;
use corrente_runtime::sync::Permit;
use corrente_runtime::timer::{Instant, now, sleep_until};
use futures_util::future::{Either, FutureExt, LocalBoxFuture, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use super::reading::{self, Position};
use crate::call::Call;
use crate::connection::Connection;
use crate::shard::{Place, Shard, Slot};
use crate::subscriptions::{OpenError, Subscription};

/// Silences shorter or longer than these are not kept.
const HEARTBEAT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

/// What a subscription remembers of each partition, its wait for news included.
const PARTITION_BYTES: usize = 512;

/// Which partition is asked for.
pub fn id_of(part: &SubscribePartition) -> TopicPartition {
    TopicPartition { topic: part.topic, partition: part.partition }
}

/// Opens a subscription; it is served beside the reading of further requests.
pub async fn start(shard: &Rc<Shard>, call: Call, request: SubscribeRequest, of_request: Permit) {
    let Some(memory) = shard.memory.sessions.try_acquire(request.partitions.len() * PARTITION_BYTES) else {
        let line = format!("no room to remember {} partitions more", request.partitions.len());
        return call.refuse(ErrorCode::Busy, line).await;
    };
    let opened = call.connection.subscriptions.open(call.header.correlation_id, request.credit);
    match opened {
        Ok(subscription) => {
            let followed = Followed::new(shard.clone(), &request);
            spawn(async move {
                drop((request, of_request));
                serve(call, &subscription, followed).await;
                drop(memory);
            })
            .detach();
        }
        Err(error @ OpenError::IsOpen(_)) => call.refuse(ErrorCode::InvalidRequest, error.to_string()).await,
        Err(error @ OpenError::TooMany(_)) => call.refuse(ErrorCode::Busy, error.to_string()).await,
    }
}

/// Gives a subscription credit, or ends it.
pub fn adjust(connection: &Connection, request: &AdjustSubscriptionRequest) -> AdjustSubscriptionResponse {
    let subscription = connection.subscriptions.find(request.subscription);
    if let Some(subscription) = &subscription {
        subscription.add_credit(request.credit);
        if request.ends {
            subscription.end();
        }
    }
    AdjustSubscriptionResponse { found: subscription.is_some() }
}

/// Sends until the subscription ends.
async fn serve(call: Call, subscription: &Subscription, mut followed: Followed) {
    let connection = &call.connection;
    let (last, memory) = loop {
        // A peer that does not take what was sent is sent no more, heartbeats included.
        connection.room().await;
        match followed.next(connection, subscription).await {
            Next::News(place) => {
                let gathered = followed.gather(place, connection, subscription).await;
                let is_last = gathered.has_failed || followed.is_done();
                let (response, memory) = (FetchResponse { partitions: gathered.partitions }, gathered.memory);
                if is_last {
                    break (response, Some(memory));
                }
                if !response.partitions.is_empty() {
                    call.answer_and_go_on(&response, memory);
                    followed.spoke();
                }
            }
            Next::Silence => {
                call.answer_and_go_on(&FetchResponse { partitions: Vec::new() }, None);
                followed.spoke();
            }
            Next::Gone(position) => {
                let partitions = vec![reading::read(&followed.shard, position, None).await];
                break (FetchResponse { partitions }, None);
            }
            Next::End => break (FetchResponse { partitions: Vec::new() }, None),
        }
    };
    connection.subscriptions.close(call.header.correlation_id);
    call.answer(&last, memory.into_iter().flatten()).await;
}

/// What there is to do next.
enum Next {
    /// The partition at this place has something to send, or an error to tell.
    News(usize),
    /// Nothing was said for as long as may be.
    Silence,
    /// What was read here is served here no longer.
    Gone(Position),
    /// Nothing more is to be sent.
    End,
}

/// The partitions of a subscription, and how far each was sent.
struct Followed {
    shard: Rc<Shard>,
    partitions: Vec<FollowedPartition>,
    /// One for each partition that is not done: comes to its place once there is something to read.
    waits: FuturesUnordered<LocalBoxFuture<'static, usize>>,
    bytes_max: usize,
    heartbeat: Duration,
    /// When the silence becomes too long.
    silent_until: Instant,
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

impl Followed {
    fn new(shard: Rc<Shard>, request: &SubscribeRequest) -> Followed {
        let [shortest, longest] = HEARTBEAT;
        let heartbeat = Duration::from_millis(request.heartbeat_ms.into()).clamp(shortest, longest);
        let partition = |part: &SubscribePartition| FollowedPartition {
            position: Position { id: id_of(part), offset: part.offset, leader_epoch: part.leader_epoch },
            end: part.end,
        };
        let followed = Followed {
            bytes_max: (request.max_bytes as usize).min(reading::bytes_affordable(&shard)),
            shard,
            partitions: request.partitions.iter().map(partition).collect(),
            waits: FuturesUnordered::new(),
            heartbeat,
            silent_until: now() + heartbeat,
        };
        for place in (0..followed.partitions.len()).filter(|place| !followed.partitions[*place].is_done()) {
            followed.wait(place, followed.partitions[place].position.offset);
        }
        followed
    }

    /// Waits for what lies beyond `from` in the partition at `place`.
    fn wait(&self, place: usize, from: Offset) {
        let (shard, id) = (self.shard.clone(), self.partitions[place].position.id);
        self.waits.push(reading::news(shard, id, from).map(move |()| place).boxed_local());
    }

    fn spoke(&mut self) {
        self.silent_until = now() + self.heartbeat;
    }

    /// Waits for something to do.
    async fn next(&mut self, connection: &Connection, subscription: &Subscription) -> Next {
        loop {
            let (adjusted, hurry) = (pin!(subscription.adjusted()), pin!(connection.hurry()));
            if self.is_done() || subscription.ends() || !connection.may_wait() {
                return Next::End;
            }
            let alarm = pin!(sleep_until(self.silent_until));
            let rings = select(alarm, select(adjusted, hurry));
            let rang = match select(pin!(self.news(subscription.credit() > 0)), rings).await {
                Either::Left((place, _)) => return Next::News(place),
                Either::Right((rang, _)) => rang,
            };
            if let Either::Left(_) = rang {
                return self.gone().map_or(Next::Silence, Next::Gone);
            }
        }
    }

    /// The next place that has something to read, for whom may send it. Cancel-safe.
    async fn news(&mut self, may_send: bool) -> usize {
        if !may_send {
            future::pending::<()>().await;
        }
        self.waits.next().await.expect("there are waits, as was checked")
    }

    /// A partition that is served no longer. Nobody tells those who wait for its news.
    fn gone(&self) -> Option<Position> {
        let is_gone = |position: &Position| {
            matches!(self.shard.place(position.id), Place::Here(Slot::Unavailable(_)) | Place::Unknown)
        };
        let followed = self.partitions.iter().filter(|part| !part.is_done()).map(|part| part.position);
        followed.into_iter().find(is_gone)
    }

    /// Whether all partitions are sent to their ends.
    fn is_done(&self) -> bool {
        self.waits.is_empty()
    }

    /// Reads what the partition at `first` has, and those that are ready after it, as far as credit and room reach.
    ///
    /// A log gives at least one batch, however large. Only the first one found may pass the bound so.
    async fn gather(
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
                read.push((place, position.offset));
                break;
            }
            let from = end_of(&found).unwrap_or(position.offset);
            self.partitions[place].position.offset = from;
            // Where nothing was found below the high watermark, nothing will be.
            let news_from = if bytes == 0 { from.max(found.high_watermark) } else { from };
            read.push((place, news_from));
            gathered.add(found, bytes);
            let may_go_on = gathered.bytes < bytes_max && !gathered.has_failed;
            next = if may_go_on { self.waits.next().now_or_never().flatten() } else { None };
        }
        read.retain(|(place, _)| !self.partitions[*place].is_done());
        read.into_iter().for_each(|(place, from)| self.wait(place, from));
        subscription.spend(gathered.bytes);
        self.shard.meters.fetched(gathered.bytes);
        gathered.settled()
    }
}

/// One past the last record found.
fn end_of(found: &FetchPartitionResponse) -> Option<Offset> {
    let (_, last) = headers(found.batches.last()?).last()?.ok()?;
    Some(last.end_offset())
}

/// What there is for one answer.
struct Gathered {
    partitions: Vec<FetchPartitionResponse>,
    bytes: usize,
    has_failed: bool,
    /// Of the connection and of the shard.
    memory: [Permit; 2],
}

impl Gathered {
    fn new(memory: [Permit; 2]) -> Gathered {
        Gathered { partitions: Vec::new(), bytes: 0, has_failed: false, memory }
    }

    fn add(&mut self, found: FetchPartitionResponse, bytes: usize) {
        self.bytes += bytes;
        self.has_failed = found.error != ErrorCode::None;
        if bytes > 0 || self.has_failed {
            self.partitions.push(found);
        }
    }

    /// With no more memory than the batches take.
    fn settled(mut self) -> Gathered {
        self.memory.iter_mut().for_each(|permit| permit.shrink_to(self.bytes));
        self
    }
}
