//! The core on tokio: sockets, timers, channels. It decides nothing.
//!
//! One task per client drives the core; each connection has a task that reads and one that writes. The client task
//! ends when the last handle (client, producer, consumer, admin) is dropped.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the SDK's driver is where the clock and the sockets of an application are touched; the core stays clean"
)]

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::core::accumulator::{Accumulator, ProducerSettings};
use crate::core::call::{CallRequest, CallResponse};
use crate::core::consume::ConsumerSettings;
use crate::core::inbox::Inbox;
use crate::core::{Action, CallId, ConnectionId, ConsumerId, Core, CoreSettings, Event, Micros, ProducerId};
use crate::error::Error;

/// Commands waiting for the client task; callers wait beyond that.
const COMMANDS_MAX: usize = 256;
/// Socket events waiting for the client task; beyond that sockets are not read.
const EVENTS_MAX: usize = 256;
/// A reader's blocks begin with this size and grow while reads fill them.
const READ_BLOCK_MIN: usize = 64 * 1024;
const READ_BLOCK_MAX: usize = 2 * 1024 * 1024;
/// Less spare room than this is not worth a read.
const READ_SPARE_MIN: usize = 8 * 1024;

/// The clock of one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(crate) fn now(&self) -> Micros {
        Micros(u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// Milliseconds since the Unix epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

enum Command {
    Call {
        request: CallRequest,
        timeout: Duration,
        reply: oneshot::Sender<Result<CallResponse, Error>>,
    },
    AddProducer {
        settings: ProducerSettings,
        partitions: u32,
        room: Arc<Semaphore>,
        reply: oneshot::Sender<Arc<Accumulator>>,
    },
    AddConsumer {
        settings: ConsumerSettings,
        reply: oneshot::Sender<Arc<Inbox>>,
    },
}

/// What every handle holds of the client task.
#[derive(Debug)]
pub(crate) struct Link {
    commands: mpsc::Sender<Command>,
    news: Arc<Notify>,
    pub(crate) clock: Clock,
    pub(crate) request_timeout: Duration,
    /// Bytes of raw batches that may be in flight.
    pub(crate) raw_room: Semaphore,
    pub(crate) raw_room_max: usize,
}

impl Link {
    /// Starts the client task.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn start(settings: CoreSettings, raw_room_max: usize) -> Arc<Link> {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let news = Arc::new(Notify::new());
        let clock = Clock { origin: Instant::now() };
        let request_timeout = settings.request_timeout;
        let writes_max = settings.requests_in_flight_max + 1;
        let driver = Driver {
            core: Core::new(settings, fastrand::Rng::new()),
            clock,
            latest: Micros::default(),
            commands: inbox,
            events,
            events_in,
            news: Arc::clone(&news),
            connections: BTreeMap::new(),
            writes_max,
            replies: BTreeMap::new(),
            rooms: BTreeMap::new(),
            last_id: 0,
        };
        tokio::spawn(driver.run());
        Arc::new(Link {
            commands,
            news,
            clock,
            request_timeout,
            raw_room: Semaphore::new(raw_room_max),
            raw_room_max,
        })
    }

    /// Tells the client task that an accumulator or an inbox has news.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    pub(crate) async fn call(&self, request: CallRequest, timeout: Duration) -> Result<CallResponse, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::Call { request, timeout, reply }, answer).await?
    }

    pub(crate) async fn add_producer(
        &self,
        settings: ProducerSettings,
        partitions: u32,
        room: Arc<Semaphore>,
    ) -> Result<Arc<Accumulator>, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::AddProducer { settings, partitions, room, reply }, answer).await
    }

    pub(crate) async fn add_consumer(&self, settings: ConsumerSettings) -> Result<Arc<Inbox>, Error> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::AddConsumer { settings, reply }, answer).await
    }

    async fn command<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, Error> {
        let closed = |()| Error::closed("request");
        self.commands.send(command).await.map_err(|_| closed(()))?;
        answer.await.map_err(|_| closed(()))
    }
}

/// The client task.
struct Driver {
    core: Core,
    clock: Clock,
    /// The last time the core was told.
    latest: Micros,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    news: Arc<Notify>,
    connections: BTreeMap<ConnectionId, Socket>,
    /// The core has no more requests in flight on a connection than this, and a hello: a writer's queue never
    /// overflows.
    writes_max: usize,
    replies: BTreeMap<CallId, oneshot::Sender<Result<CallResponse, Error>>>,
    rooms: BTreeMap<ProducerId, Arc<Semaphore>>,
    last_id: u64,
}

/// A connection's tasks; they end with it.
struct Socket {
    writes: mpsc::Sender<Vec<Bytes>>,
    task: AbortHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driver {
    async fn run(mut self) {
        let sleep = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(sleep);
        let mut sleeps_until = None;
        loop {
            self.act();
            let deadline = self.core.next_deadline();
            if deadline != sleeps_until {
                if let Some(at) = deadline {
                    sleep.as_mut().reset((self.clock.origin + Duration::from_micros(at.0)).into());
                }
                sleeps_until = deadline;
            }
            tokio::select! {
                event = self.events.recv() => {
                    let event = event.expect("the driver holds a sender itself");
                    let now = self.now();
                    self.core.handle(now, event);
                }
                () = self.news.notified() => {
                    let now = self.now();
                    self.core.handle(now, Event::Wake);
                }
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = sleep.as_mut(), if deadline.is_some() => {
                    // A timer may fire a little before the microsecond it was set to.
                    self.latest = self.latest.max(deadline.unwrap_or_default());
                    sleeps_until = None;
                    let now = self.now();
                    self.core.handle(now, Event::Tick);
                }
            }
        }
    }

    fn now(&mut self) -> Micros {
        self.latest = self.latest.max(self.clock.now());
        self.latest
    }

    fn command(&mut self, command: Command) {
        self.last_id += 1;
        let id = self.last_id;
        let now = self.now();
        match command {
            Command::Call { request, timeout, reply } => {
                let call = CallId(id);
                self.replies.insert(call, reply);
                self.core.handle(now, Event::Call { call, request, timeout });
            }
            Command::AddProducer { settings, partitions, room, reply } => {
                let producer = ProducerId(id);
                self.rooms.retain(|_, room| Arc::strong_count(room) > 1);
                self.rooms.insert(producer, room);
                let accumulator = self.core.add_producer(producer, settings, partitions);
                if let Err(unwanted) = reply.send(accumulator) {
                    unwanted.detach();
                    self.news.notify_one();
                }
            }
            Command::AddConsumer { settings, reply } => {
                let inbox = self.core.add_consumer(now, ConsumerId(id), settings);
                if let Err(unwanted) = reply.send(inbox) {
                    unwanted.abandon();
                    self.news.notify_one();
                }
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect { connection, host, port } => self.connect(connection, host, port),
                Action::Send { connection, chunks } => {
                    // If the writer is gone, the reader reports why.
                    if let Some(socket) = self.connections.get(&connection) {
                        let _ = socket.writes.try_send(chunks);
                    }
                }
                Action::Close { connection } => {
                    self.connections.remove(&connection);
                }
                Action::Reply { call, result } => {
                    // A caller that went away wants no answer.
                    if let Some(reply) = self.replies.remove(&call) {
                        let _ = reply.send(result);
                    }
                }
                Action::RoomFreed { producer, bytes } => {
                    if let Some(room) = self.rooms.get(&producer) {
                        room.add_permits(bytes);
                    }
                }
            }
        }
    }

    fn connect(&mut self, connection: ConnectionId, host: Arc<str>, port: u16) {
        let (writes, queue) = mpsc::channel(self.writes_max);
        let events = self.events_in.clone();
        let task = tokio::spawn(async move {
            let cause = converse(connection, &host, port, queue, &events).await;
            let _ = events.send(Event::Closed { connection, cause }).await;
        });
        self.connections.insert(connection, Socket { writes, task: task.abort_handle() });
    }
}

impl Drop for Driver {
    /// Also when the runtime ends under the task, or the core broke a rule of its own: nobody may wait for ever.
    fn drop(&mut self) {
        let now = self.now();
        if catch_unwind(AssertUnwindSafe(|| self.core.close(now))).is_err() {
            tracing::error!("the client could not settle what was in flight");
        }
    }
}

/// Opens the socket, then reads and writes until it breaks. Returns why.
async fn converse(
    connection: ConnectionId,
    host: &str,
    port: u16,
    queue: mpsc::Receiver<Vec<Bytes>>,
    events: &mpsc::Sender<Event>,
) -> String {
    let stream = match TcpStream::connect((host, port)).await {
        Ok(stream) => stream,
        Err(error) => return format!("connect to {host}:{port}: {error}"),
    };
    if let Err(error) = stream.set_nodelay(true) {
        return format!("set nodelay: {error}");
    }
    if events.send(Event::Connected { connection }).await.is_err() {
        return "the client is closed".to_owned();
    }
    let (reader, writer) = stream.into_split();
    let mut writing = AbortOnDrop(tokio::spawn(write_all(writer, queue)));
    tokio::select! {
        cause = read_all(connection, reader, events) => cause,
        result = &mut writing.0 => match result {
            Ok(Err(error)) => format!("write: {error}"),
            _ => "the connection was closed".to_owned(),
        },
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn read_all(
    connection: ConnectionId,
    mut reader: OwnedReadHalf,
    events: &mpsc::Sender<Event>,
) -> String {
    let mut block_len = READ_BLOCK_MIN;
    let mut block = BytesMut::with_capacity(block_len);
    loop {
        // `split` below leaves the block empty with the rest of its capacity.
        let spare = block.capacity();
        if spare < READ_SPARE_MIN {
            block.reserve(block_len);
        }
        match reader.read_buf(&mut block).await {
            Ok(0) => return "the broker closed the connection".to_owned(),
            Ok(read) => {
                let filled = read == block.capacity();
                block_len = if filled { (block_len * 2).min(READ_BLOCK_MAX) } else { block_len };
                let bytes = block.split();
                if events.send(Event::Received { connection, bytes }).await.is_err() {
                    return "the client is closed".to_owned();
                }
            }
            Err(error) => return format!("read: {error}"),
        }
    }
}

async fn write_all(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<Bytes>>) -> std::io::Result<()> {
    let mut chunks = Chunks::default();
    while let Some(first) = queue.recv().await {
        chunks.0.extend(first);
        while let Ok(more) = queue.try_recv() {
            chunks.0.extend(more);
        }
        writer.write_all_buf(&mut chunks).await?;
    }
    writer.shutdown().await
}

/// Bytes to be written, vectored.
#[derive(Default)]
struct Chunks(VecDeque<Bytes>);

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.front().map_or(&[], |chunk| chunk)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.0) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.0.front_mut().expect("no more is written than there is");
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.0.pop_front();
        }
    }
}
