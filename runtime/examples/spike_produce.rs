//! The question behind `docs/adr/0001-runtime-seam.md`: what does it cost that sockets are glommio's and
//! files are on a ring of ours, against one ring for both?
//!
//! One client, one request at a time: 256 bytes in, a durable 4 KiB write into a prewritten file, 16 bytes
//! back. The server keeps to one core, the client to another. Rounds are interleaved, so that a
//! disturbance meets every contender; each figure is the median of the rounds, with the least and
//! the greatest.
//!
//! ```text
//! cargo run --release -p corrente-runtime --example spike_produce [DIRECTORY [ROUNDS [OPERATIONS]]]
//! ```
//!
//! DIRECTORY (the current one by default) must lie on the disk in question.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a measurement reads clocks, and its floors are what the runtime is measured against"
)]
#![allow(unsafe_code, reason = "the ring of the contender is driven by hand")]

use std::fs::{File as StdFile, OpenOptions as StdOpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use corrente_runtime::buffer::AlignedBuf;
use corrente_runtime::executor::{Executors, ExecutorsConfig, Idle};
use corrente_runtime::file::{File, OpenOptions, Sync};
use corrente_runtime::socket::Listener;
use io_uring::{IoUring, opcode, types};
use rustix::time::{ClockId, clock_gettime};

const REQUEST: usize = 256;
const REPLY: usize = 16;
const WRITE: usize = 4096;
const FILE: u64 = 64 << 20;
const WARM_UP: usize = 200;
const SPIN: Duration = Duration::from_micros(100);
const SERVER_CPU: usize = 0;
const CLIENT_CPU: usize = 1;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let rounds: usize = arguments.next().map_or(7, |rounds| rounds.parse().expect("a number of rounds"));
    let path = directory.join("spike_produce.tmp");
    let operations = arguments.next().map_or(4000, |count| count.parse().expect("a number of operations"));
    prewrite(&path);
    pin(CLIENT_CPU);

    let mut contenders = vec![
        Contender::new("floor: TCP ping-pong, blocking", |_, round| round.requests(serve_blocking)),
        Contender::new("floor: durable write, raw ring", |path, round| round.writes(path)),
        Contender::new("(a) glommio + ring, park", |path, round| round.runtime(path, Idle::Park)),
        Contender::new("(a) glommio + ring, spin 100 us", |path, round| {
            round.runtime(path, Idle::Spin(SPIN));
        }),
        Contender::new("(a) glommio + ring, poll", |path, round| round.runtime(path, Idle::Poll)),
        Contender::new("(b) one raw ring, park", |path, round| round.one_ring(path, Duration::ZERO)),
        Contender::new("(b) one raw ring, spin 100 us", |path, round| round.one_ring(path, SPIN)),
        Contender::new("(b) one raw ring, poll", |path, round| round.one_ring(path, Duration::MAX)),
    ];
    for _ in 0..rounds {
        for contender in &mut contenders {
            let mut round = Round { operations, latencies: Vec::new(), server_cpu: Duration::ZERO };
            (contender.run)(&path, &mut round);
            contender.results.push(round.result());
        }
    }
    std::fs::remove_file(&path).expect("the file is ours");
    report(&contenders, rounds, operations);
}

type Run = fn(&Path, &mut Round);

struct Contender {
    name: &'static str,
    run: Run,
    results: Vec<Figures>,
}

impl Contender {
    fn new(name: &'static str, run: Run) -> Self {
        Self { name, run, results: Vec::new() }
    }
}

/// p50, p99, p99.9 and the server's CPU time per operation, in microseconds.
type Figures = [f64; 4];

fn report(contenders: &[Contender], rounds: usize, operations: usize) {
    println!("{rounds} interleaved rounds of {operations} operations; median (least - greatest), us\n");
    println!("| | p50 | p99 | p99.9 | server CPU per op |");
    println!("|---|---|---|---|---|");
    for contender in contenders {
        let cells = (0..4).map(|column| {
            let mut values: Vec<f64> = contender.results.iter().map(|figures| figures[column]).collect();
            values.sort_by(f64::total_cmp);
            let (least, greatest) = (values[0], values[values.len() - 1]);
            format!("{:.1} ({least:.1} - {greatest:.1})", values[values.len() / 2])
        });
        println!("| {} | {} |", contender.name, cells.collect::<Vec<_>>().join(" | "));
    }
}

struct Round {
    operations: usize,
    latencies: Vec<Duration>,
    server_cpu: Duration,
}

impl Round {
    fn result(mut self) -> Figures {
        self.latencies.sort();
        let at = |share: f64| {
            let index = (self.latencies.len() as f64 * share) as usize;
            micros(self.latencies[index.min(self.latencies.len() - 1)])
        };
        [at(0.5), at(0.99), at(0.999), micros(self.server_cpu) / self.operations as f64]
    }

    /// Measures a server that runs on a thread of its own.
    fn requests(&mut self, serve: impl FnOnce(TcpListener) + Send + 'static) {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            pin(SERVER_CPU);
            serve(listener);
        });
        self.ask(address);
        server.join().expect("the server ended well");
    }

    /// Asks a server at `address` and closes the connection.
    fn ask(&mut self, address: SocketAddr) {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a live socket");
        let (request, mut reply) = ([7; REQUEST], [0; REPLY]);
        let mut cpu_before = Duration::ZERO;
        for operation in 0..WARM_UP + self.operations {
            if operation == WARM_UP {
                cpu_before = others_cpu();
            }
            let begun = Instant::now();
            stream.write_all(&request).expect("sent");
            stream.read_exact(&mut reply).expect("answered");
            if operation >= WARM_UP {
                self.latencies.push(begun.elapsed());
            }
        }
        self.server_cpu = others_cpu() - cpu_before;
    }

    /// Measures durable writes alone.
    fn writes(&mut self, path: &Path) {
        let (sender, receiver) = mpsc::channel();
        let path = path.to_owned();
        let operations = self.operations;
        let writer = thread::spawn(move || {
            pin(SERVER_CPU);
            let file = open_direct(&path);
            let block = AlignedBuf::zeroed(WRITE);
            let mut ring = raw_ring();
            for operation in 0..WARM_UP + operations {
                if operation == WARM_UP {
                    sender.send((Duration::ZERO, thread_cpu())).expect("heard");
                }
                let begun = Instant::now();
                push(&mut ring, &write_entry(&file, &block, operation));
                ring.submit_and_wait(1).expect("a working ring");
                expect_len(&mut ring, WRITE);
                if operation >= WARM_UP {
                    sender.send((begun.elapsed(), Duration::ZERO)).expect("heard");
                }
            }
            sender.send((Duration::ZERO, thread_cpu())).expect("heard");
        });
        let mut cpu = Vec::new();
        for (latency, thread_cpu) in receiver {
            match thread_cpu.is_zero() {
                true => self.latencies.push(latency),
                false => cpu.push(thread_cpu),
            }
        }
        writer.join().expect("the writer ended well");
        self.server_cpu = cpu[1] - cpu[0];
    }

    /// (a): the runtime as it is.
    fn runtime(&mut self, path: &Path, idle: Idle) {
        let (sender, receiver) = mpsc::channel();
        let path = path.to_owned();
        let config = ExecutorsConfig { cpus: Some(vec![SERVER_CPU]), idle, ..ExecutorsConfig::new(1) };
        // The runtime's own check of the CPUs asks the calling thread, which is pinned elsewhere.
        let mut executors = thread::spawn(move || {
            unpin();
            Executors::start(config, move |_| serve_runtime(path.clone(), sender.clone()))
        })
        .join()
        .expect("no panic")
        .expect("a shard starts here");
        self.ask(receiver.recv().expect("an address"));
        glommio::LocalExecutor::default()
            .run(async move { executors.stopped().await })
            .expect("the shard ended well");
    }

    /// (b): one ring, driven by hand.
    fn one_ring(&mut self, path: &Path, spin: Duration) {
        let path = path.to_owned();
        self.requests(move |listener| serve_one_ring(listener, &path, spin));
    }
}

fn serve_blocking(listener: TcpListener) {
    let (mut stream, _) = listener.accept().expect("accepted");
    stream.set_nodelay(true).expect("a live socket");
    let mut request = [0; REQUEST];
    while stream.read_exact(&mut request).is_ok() {
        stream.write_all(&[1; REPLY]).expect("sent");
    }
}

async fn serve_runtime(path: PathBuf, address: mpsc::Sender<SocketAddr>) {
    let file = File::open(&path, OpenOptions::READ_WRITE).await.expect("prewritten");
    let block = AlignedBuf::zeroed(WRITE).freeze();
    let reply = [Bytes::from_static(&[1; REPLY])];
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    address.send(listener.local_addr().expect("an address")).expect("heard");
    let (stream, _) = listener.accept().await.expect("accepted");
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::with_capacity(64 << 10);
    for operation in 0.. {
        buffer.clear();
        while buffer.len() < REQUEST {
            if read.read(&mut buffer).await.expect("a read") == 0 {
                return;
            }
        }
        file.write_at(block.clone(), position(operation), Sync::Data).await.expect("durable");
        write.write_all(&reply).await.expect("sent");
    }
}

fn serve_one_ring(listener: TcpListener, path: &Path, spin: Duration) {
    let file = open_direct(path);
    let block = AlignedBuf::zeroed(WRITE);
    let mut ring = raw_ring();
    let (stream, _) = listener.accept().expect("accepted");
    stream.set_nodelay(true).expect("a live socket");
    let socket = types::Fd(stream.as_raw_fd());
    let (mut request, reply) = ([0_u8; REQUEST], [1_u8; REPLY]);
    for operation in 0.. {
        push(&mut ring, &opcode::Recv::new(socket, request.as_mut_ptr(), REQUEST as u32).build());
        let received = wait(&mut ring, spin);
        if received <= 0 {
            return;
        }
        assert_eq!(received, REQUEST as i32, "one small request arrives whole");
        push(&mut ring, &write_entry(&file, &block, operation));
        assert_eq!(wait(&mut ring, spin), WRITE as i32);
        push(&mut ring, &opcode::Send::new(socket, reply.as_ptr(), REPLY as u32).build());
        assert_eq!(wait(&mut ring, spin), REPLY as i32);
    }
}

fn raw_ring() -> IoUring {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun();
    builder.build(64).expect("a ring")
}

fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) {
    // SAFETY: every caller keeps what the entry points to until its completion, which it waits for.
    unsafe { ring.submission().push(entry) }.expect("room");
}

/// Looks for a completion for as long as `spin`, then sleeps for it.
fn wait(ring: &mut IoUring, spin: Duration) -> i32 {
    ring.submit().expect("a working ring");
    let begun = Instant::now();
    loop {
        if let Some(completion) = ring.completion().next() {
            return completion.result();
        }
        if begun.elapsed() >= spin {
            ring.submit_and_wait(1).expect("a working ring");
        } else {
            // Lets the kernel run what it has deferred, and does not wait.
            // SAFETY: no argument is passed by address.
            unsafe { ring.submitter().enter::<libc::sigset_t>(0, 0, 1, None) }.expect("a working ring");
        }
    }
}

fn expect_len(ring: &mut IoUring, len: usize) {
    let completion = ring.completion().next().expect("waited for");
    assert_eq!(usize::try_from(completion.result()), Ok(len));
}

fn write_entry(file: &StdFile, block: &AlignedBuf, operation: usize) -> io_uring::squeue::Entry {
    opcode::Write::new(types::Fd(file.as_raw_fd()), block.as_ptr(), WRITE as u32)
        .offset(position(operation))
        .rw_flags(libc::RWF_DSYNC)
        .build()
}

fn position(operation: usize) -> u64 {
    (operation * WRITE) as u64 % FILE
}

fn open_direct(path: &Path) -> StdFile {
    StdOpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(path).expect("prewritten")
}

fn prewrite(path: &Path) {
    let mut file = StdFile::create(path).expect("a writable directory");
    let megabyte = vec![0; 1 << 20];
    for _ in 0..FILE >> 20 {
        file.write_all(&megabyte).expect("room on the disk");
    }
    file.sync_all().expect("flushed");
}

fn pin(cpu: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).expect("two cpus are needed");
}

fn unpin() {
    let mut set = rustix::thread::CpuSet::new();
    set.set(SERVER_CPU);
    set.set(CLIENT_CPU);
    rustix::thread::sched_setaffinity(None, &set).expect("two cpus are needed");
}

/// CPU time of this process without the calling thread.
fn others_cpu() -> Duration {
    let whole = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(whole.tv_sec as u64, whole.tv_nsec as u32).saturating_sub(thread_cpu())
}

fn thread_cpu() -> Duration {
    let own = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(own.tv_sec as u64, own.tv_nsec as u32)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
