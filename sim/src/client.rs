//! The SDK's core on the simulated runtime: sockets, timers, tasks. It decides nothing.
//!
//! The counterpart of the SDK's tokio transport: one task drives the core, each connection has a task that
//! reads and one that writes. Everything ends with the task's node, or when the last handle is dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use corrente_client::core::accumulator::{Accumulator, ProducerSettings};
use corrente_client::core::call::{CallRequest, CallResponse};
use corrente_client::core::consume::ConsumerSettings;
use corrente_client::core::inbox::{Fetched, Inbox};
use corrente_client::core::{
    Action, CallId, ConnectionId, ConsumerId, Core, CoreSettings, Event, Micros, ProducerId,
};
use corrente_client::{Error, Record, Ticket};
use corrente_runtime::executor::{Task, spawn};
use corrente_runtime::mailbox::{Receiver, Sender, mailbox};
use corrente_runtime::socket::{ReadHalf, Stream, WriteHalf};
use corrente_runtime::sync::oneshot;
use corrente_runtime::timer::{self, Instant, timeout, wall_clock_ms};

/// Socket events waiting for the driving task; beyond that sockets are not read.
const EVENTS_MAX: usize = 64;
/// What a connection reads at once.
const READ_BLOCK: usize = 64 * 1024;

/// A client of the broker, running on a simulated node. Clones are the same client.
#[derive(Clone)]
pub struct Client(Rc<Inner>);

struct Inner {
    core: RefCell<Core>,
    events: Sender<Event>,
    /// The core has been given something by a handle and not been driven since.
    nudged: Cell<bool>,
    connections: RefCell<BTreeMap<ConnectionId, Connection>>,
    /// A connection has no more than this many writes under way, the hello among them.
    writes_max: usize,
    replies: RefCell<BTreeMap<CallId, oneshot::Sender<Result<CallResponse, Error>>>>,
    request_timeout: Duration,
    last_id: Cell<u64>,
}

/// Dropping it ends its tasks and closes its socket.
struct Connection {
    writes: Sender<Vec<Bytes>>,
    _task: Task<()>,
}

impl Client {
    /// Starts a client on the node of the calling task. `seed` feeds the core's own draws.
    pub fn start(settings: CoreSettings, seed: u64) -> Client {
        let (events, inbox) = mailbox(EVENTS_MAX);
        let inner = Rc::new(Inner {
            events,
            nudged: Cell::new(false),
            connections: RefCell::default(),
            writes_max: settings.requests_in_flight_max + 1,
            replies: RefCell::default(),
            request_timeout: settings.request_timeout,
            last_id: Cell::new(0),
            core: RefCell::new(Core::new(settings, fastrand::Rng::with_seed(seed))),
        });
        spawn(drive(Rc::downgrade(&inner), inbox)).detach();
        Client(inner)
    }

    /// Asks the cluster one question; tried again for as long as a request may take.
    pub async fn call(&self, request: CallRequest) -> Result<CallResponse, Error> {
        self.call_within(request, self.0.request_timeout).await
    }

    /// Asks the cluster one question, and tries again for this long.
    pub async fn call_within(&self, request: CallRequest, timeout: Duration) -> Result<CallResponse, Error> {
        let (reply, answer) = oneshot::channel();
        let call = CallId(self.0.next_id());
        self.0.replies.borrow_mut().insert(call, reply);
        self.0.core.borrow_mut().handle(micros(), Event::Call { call, request, timeout });
        self.0.nudge();
        answer.await.expect("the core answers every call")
    }

    /// A producer to a topic that has this many partitions.
    pub fn producer(&self, settings: ProducerSettings, partitions: u32) -> Producer {
        let id = ProducerId(self.0.next_id());
        let accumulator = self.0.core.borrow_mut().add_producer(id, settings, partitions);
        Producer { client: self.clone(), accumulator }
    }

    /// A reader of partitions.
    pub fn reader(&self, settings: ConsumerSettings) -> Reader {
        let id = ConsumerId(self.0.next_id());
        let inbox = self.0.core.borrow_mut().add_consumer(micros(), id, settings);
        self.0.nudge();
        Reader { client: self.clone(), inbox }
    }
}

/// Sends records.
pub struct Producer {
    client: Client,
    accumulator: Arc<Accumulator>,
}

impl Producer {
    /// Takes the record at once; how many may be unacknowledged is the caller's to bound.
    pub fn send(&self, record: &Record) -> Result<Ticket, Error> {
        let pushed = self.accumulator.push(record, wall_clock_ms(), micros)?;
        if pushed.wake {
            self.client.0.wake();
        }
        Ok(pushed.ticket)
    }
}

/// Reads records.
pub struct Reader {
    client: Client,
    inbox: Arc<Inbox>,
}

impl Reader {
    /// What was fetched next; None at the end, if it was asked to end. Cancel-safe.
    pub async fn next(&self) -> Option<Result<Fetched, Error>> {
        let taken = poll_fn(|context| self.inbox.poll_take(context)).await?;
        if taken.wake {
            self.client.0.wake();
        }
        Some(taken.item)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inbox.abandon();
        self.client.0.wake();
    }
}

impl Inner {
    fn next_id(&self) -> u64 {
        self.last_id.set(self.last_id.get() + 1);
        self.last_id.get()
    }

    /// Tells the core that an accumulator or an inbox has news.
    fn wake(&self) {
        self.core.borrow_mut().handle(micros(), Event::Wake);
        self.nudge();
    }

    /// Has the driving task look at the core. A full mailbox says as much by itself.
    fn nudge(&self) {
        if !self.nudged.replace(true) {
            let _ = self.events.try_send(Event::Tick);
        }
    }

    /// Does what the core wants done.
    fn act(self: &Rc<Self>) {
        loop {
            let Some(action) = self.core.borrow_mut().poll_action() else { return };
            match action {
                Action::Connect { connection, host, port } => self.connect(connection, &host, port),
                Action::Send { connection, chunks } => {
                    // If the connection is gone, its reading task says why.
                    if let Some(connection) = self.connections.borrow().get(&connection) {
                        let _ = connection.writes.try_send(chunks);
                    }
                }
                Action::Close { connection } => drop(self.connections.borrow_mut().remove(&connection)),
                Action::Reply { call, result } => {
                    // A caller that went away wants no answer.
                    let _ = self.replies.borrow_mut().remove(&call).map(|reply| reply.send(result));
                }
                // Whoever sends bounds what is unacknowledged by itself.
                Action::RoomFreed { .. } => {}
            }
        }
    }

    fn connect(&self, connection: ConnectionId, host: &str, port: u16) {
        let address = SocketAddr::new(host.parse().expect("simulated hosts are named by address"), port);
        let (writes, queue) = mailbox(self.writes_max);
        let events = self.events.clone();
        let task = spawn(async move {
            let cause = converse(connection, address, queue, &events).await;
            // Nobody is left to tell if the client has ended.
            let _ = events.send(Event::Closed { connection, cause }).await;
        });
        self.connections.borrow_mut().insert(connection, Connection { writes, _task: task });
    }
}

/// Drives the core until the last handle is gone.
async fn drive(client: Weak<Inner>, mut events: Receiver<Event>) {
    loop {
        let deadline = {
            let Some(client) = client.upgrade() else { return };
            client.nudged.set(false);
            client.act();
            client.core.borrow().next_deadline()
        };
        let event = match deadline {
            None => events.recv().await,
            Some(at) => match timeout(instant(at) - timer::now(), events.recv()).await {
                Ok(event) => event,
                Err(_elapsed) => Some(Event::Tick),
            },
        };
        let (Some(client), Some(event)) = (client.upgrade(), event) else { return };
        client.core.borrow_mut().handle(micros(), event);
    }
}

/// Opens the socket, then reads and writes until it breaks. Returns why.
async fn converse(
    connection: ConnectionId,
    address: SocketAddr,
    queue: Receiver<Vec<Bytes>>,
    events: &Sender<Event>,
) -> String {
    let stream = match Stream::connect(address).await {
        Ok(stream) => stream,
        Err(error) => return format!("connect to {address}: {error}"),
    };
    if events.send(Event::Connected { connection }).await.is_err() {
        return "the client has ended".to_owned();
    }
    let (reader, writer) = stream.into_split();
    let _writing = spawn(write_all(writer, queue));
    read_all(connection, reader, events).await
}

async fn read_all(connection: ConnectionId, mut reader: ReadHalf, events: &Sender<Event>) -> String {
    loop {
        let mut block = BytesMut::with_capacity(READ_BLOCK);
        match reader.read(&mut block).await {
            Ok(0) => return "the broker closed the connection".to_owned(),
            Ok(_) if events.send(Event::Received { connection, bytes: block }).await.is_err() => {
                return "the client has ended".to_owned();
            }
            Ok(_) => {}
            Err(error) => return format!("read: {error}"),
        }
    }
}

/// A write that fails breaks the stream, which the reading task sees.
async fn write_all(mut writer: WriteHalf, mut queue: Receiver<Vec<Bytes>>) {
    while let Some(chunks) = queue.recv().await {
        if writer.write_all(&chunks).await.is_err() {
            return;
        }
    }
}

fn micros() -> Micros {
    Micros(timer::now().as_nanos() / 1_000)
}

fn instant(at: Micros) -> Instant {
    Instant::from_nanos(at.0.saturating_mul(1_000))
}
