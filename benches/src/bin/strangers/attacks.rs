//! Every way to behave badly, one function each: what is sent, and what has to come back.
//!
//! An attack ends with the one line that its peer sees, or with an error if the broker took it otherwise than it
//! should.
//! Each is bounded in bytes and in time, and leaves nothing open.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use corrente_protocol::api::{ErrorResponse, FetchPartition, FetchRequest, Message, MetadataRequest};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{FRAME_HEADER_LEN, MAX_FRAME_DEFAULT};
use corrente_protocol::hello::{CLIENT_HELLO_LEN, ClientHello};
use corrente_protocol::ids::{Offset, PartitionIndex, ShardId, TopicId};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::time::sleep;

use crate::bytes_on_the_wire::{
    batch, count_bombs, damaged_batches, frame_around, frame_of, full_frames, header, produce,
};
use crate::peer::{Last, Peer};

/// What is attacked.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where the broker listens.
    pub broker: SocketAddr,
    /// A topic of one partition that nothing sound is sent to: it has to stay empty.
    pub prey: TopicId,
    /// A topic with plenty of records in partition 0.
    pub stock: TopicId,
}

/// One way to behave badly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    AnotherProtocol,
    WrongMagic,
    DamagedHello,
    HelloFromTheFuture,
    Silence,
    HalfAHello,
    HelloByteByByte,
    ResetAtOnce,
    NoiseForAHeader,
    OversizedFrame,
    TruncatedFrame,
    BodyNeverSent,
    BodyBegunAndLeft,
    UnknownApi,
    UnknownVersion,
    CountBombs,
    DamagedBatches,
    UnknownTopic,
    OffsetOutOfRange,
    FrameFullOfSmallThings,
    AnswersNeverRead,
    FrameByteByByte,
}

use Attack::*;

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 22] = [
        AnotherProtocol,
        WrongMagic,
        DamagedHello,
        HelloFromTheFuture,
        Silence,
        HalfAHello,
        HelloByteByByte,
        ResetAtOnce,
        NoiseForAHeader,
        OversizedFrame,
        TruncatedFrame,
        BodyNeverSent,
        BodyBegunAndLeft,
        UnknownApi,
        UnknownVersion,
        CountBombs,
        DamagedBatches,
        UnknownTopic,
        OffsetOutOfRange,
        FrameFullOfSmallThings,
        AnswersNeverRead,
        FrameByteByByte,
    ];

    /// Makes the attack once; `turn` varies what has variants. The line that the peer saw, or what was wrong with it.
    pub async fn make(self, target: Target, turn: usize) -> Result<String> {
        match self {
            AnotherProtocol => {
                const GREETINGS: [&[u8]; 3] = [
                    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
                    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03",
                    b"\x00\x00\x00\x15\x00\x12\x00\x03",
                ];
                refused_hello(target, GREETINGS[turn % GREETINGS.len()], ErrorCode::InvalidRequest).await
            }
            WrongMagic => refused_hello(target, b"C0RRENTE", ErrorCode::InvalidRequest).await,
            DamagedHello => {
                let mut hello = hello().encode();
                hello[20 + turn % 60] ^= 1;
                refused_hello(target, &hello, ErrorCode::InvalidRequest).await
            }
            HelloFromTheFuture => {
                let mut hello = hello();
                (hello.version_min, hello.version_max) = (900, 901);
                refused_hello(target, &hello.encode(), ErrorCode::UnsupportedVersion).await
            }
            Silence => part_of_a_hello(target, 0).await,
            HalfAHello => part_of_a_hello(target, 8 + turn % (CLIENT_HELLO_LEN - 8)).await,
            HelloByteByByte => hello_byte_by_byte(target).await,
            ResetAtOnce => reset_at_once(target, turn).await,
            NoiseForAHeader => {
                let noise = [0x5a; FRAME_HEADER_LEN];
                refused_and_closed(target, &noise, "frame header checksum is").await
            }
            OversizedFrame => {
                let header = header(1, 7, u32::MAX).encode();
                refused_and_closed(target, &header, "frame body of 4294967295 bytes is longer than").await
            }
            TruncatedFrame => truncated_frame(target).await,
            BodyNeverSent => body_never_sent(target, 0).await,
            BodyBegunAndLeft => body_never_sent(target, 64 * 1024).await,
            UnknownApi => {
                let frame = frame_around(4711, 7, &[]);
                refused_and_served(target, &frame, ErrorCode::UnsupportedApi).await
            }
            UnknownVersion => {
                let mut header = header(1, 7, 0);
                header.version = 99;
                refused_and_served(target, &header.encode(), ErrorCode::UnsupportedVersion).await
            }
            CountBombs => every_count_bomb(target).await,
            DamagedBatches => every_damaged_batch(target).await,
            UnknownTopic => unknown_topic(target).await,
            OffsetOutOfRange => offset_out_of_range(target).await,
            FrameFullOfSmallThings => frame_full_of_small_things(target, turn).await,
            AnswersNeverRead => answers_never_read(target).await,
            FrameByteByByte => frame_byte_by_byte(target).await,
        }
    }
}

fn hello() -> ClientHello {
    ClientHello::new("stranger", ShardId::ANY)
}

async fn refused_hello(target: Target, greeting: &[u8], code: ErrorCode) -> Result<String> {
    let mut peer = Peer::connect(target.broker).await?;
    peer.send(greeting).await;
    let answer = peer.server_hello().await?;
    ensure!(answer.error == code, "{:?} instead of {code:?}: {}", answer.error, answer.text);
    peer.until_closed(0).await?;
    one_line(answer.text)
}

async fn part_of_a_hello(target: Target, len: usize) -> Result<String> {
    let began = Instant::now();
    let mut peer = Peer::connect(target.broker).await?;
    peer.send(&hello().encode()[..len]).await;
    peer.until_closed(0).await?;
    Ok(closed_after(began))
}

/// Sixty milliseconds a byte: not one pause is long, and the whole would take longer than a hello may.
async fn hello_byte_by_byte(target: Target) -> Result<String> {
    let began = Instant::now();
    let mut peer = Peer::connect(target.broker).await?;
    for byte in hello().encode() {
        if peer.stream.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(60)).await;
    }
    peer.until_closed(0).await?;
    Ok(closed_after(began))
}

async fn reset_at_once(target: Target, turn: usize) -> Result<String> {
    let mut peer = Peer::connect(target.broker).await?;
    peer.stream.set_zero_linger()?;
    if turn.is_multiple_of(2) {
        peer.send(&hello().encode()).await;
        peer.send(&frame_of(&MetadataRequest { topics: None }, 1)).await;
    }
    Ok("(hung up first)".to_owned())
}

async fn refused_and_closed(target: Target, bytes: &[u8], begins: &str) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    peer.send(bytes).await;
    let (code, line) = peer.refusal().await?;
    ensure!(code == ErrorCode::InvalidRequest, "{code:?} instead of InvalidRequest: {line}");
    ensure!(line.starts_with(begins), "not about this: {line}");
    peer.until_closed(0).await?;
    one_line(line)
}

async fn truncated_frame(target: Target) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    peer.send(&header(1, 7, 1000).encode()).await;
    peer.send(&[1; 10]).await;
    peer.stream.shutdown().await?;
    peer.until_closed(0).await?;
    Ok("(closed)".to_owned())
}

/// Claims the longest body there may be and sends `sent` bytes of it.
async fn body_never_sent(target: Target, sent: usize) -> Result<String> {
    let began = Instant::now();
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    peer.send(&header(1, 7, MAX_FRAME_DEFAULT).encode()).await;
    peer.send(&vec![0; sent]).await;
    peer.until_closed(0).await?;
    Ok(closed_after(began))
}

async fn refused_and_served(target: Target, frame: &[u8], code: ErrorCode) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    peer.send(frame).await;
    let (got, line) = peer.refusal().await?;
    ensure!(got == code, "{got:?} instead of {code:?}: {line}");
    still_served(&mut peer).await?;
    one_line(line)
}

async fn every_count_bomb(target: Target) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    let mut lines = Vec::new();
    for (api, body) in count_bombs() {
        peer.send(&frame_around(api.code(), 7, &body)).await;
        let (code, line) = peer.refusal().await.with_context(|| format!("a count bomb for {api}"))?;
        ensure!(code == ErrorCode::InvalidRequest, "{api}: {code:?}: {line}");
        lines.push(format!("{api}: {}", one_line(line)?));
    }
    still_served(&mut peer).await?;
    Ok(lines.join("\n"))
}

async fn every_damaged_batch(target: Target) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    let mut lines = Vec::new();
    for (batches, begins) in damaged_batches() {
        let response = peer.call(&produce(target.prey, 0, batches)).await?;
        let part = response.partitions.first().context("no partition in the response")?;
        let line = part.message.clone().unwrap_or_default();
        ensure!(part.error != ErrorCode::None, "a damaged batch was taken");
        ensure!(line.starts_with(begins), "'{line}' instead of '{begins} …'");
        lines.push(one_line(line)?);
    }
    Ok(lines.join("\n"))
}

async fn unknown_topic(target: Target) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    let response = peer.call(&produce(TopicId([9; 16]), 3, batch(&[b"x"]))).await?;
    let part = response.partitions.first().context("no partition in the response")?;
    ensure!(part.error == ErrorCode::UnknownTopicOrPartition, "{:?}", part.error);
    one_line(part.message.clone().context("an error without a line")?)
}

async fn offset_out_of_range(target: Target) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    let response = peer.call(&fetch(target.prey, Offset(1 << 40), 1 << 20)).await?;
    let part = response.partitions.first().context("no partition in the response")?;
    ensure!(part.error == ErrorCode::OffsetOutOfRange, "{:?}", part.error);
    one_line(part.message.clone().context("an error without a line")?)
}

/// See [`full_frames`]. Answered or refused; either way in bounds, and the connection goes on.
async fn frame_full_of_small_things(target: Target, turn: usize) -> Result<String> {
    static FRAMES: LazyLock<[Bytes; 4]> = LazyLock::new(full_frames);
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    peer.send(&FRAMES[turn % FRAMES.len()]).await;
    let Last::Frame(header, body) = peer.next().await? else { bail!("closed without a word") };
    let line = if header.is_error() {
        ErrorResponse::decode(0, body)?.message.context("an error without a line")?
    } else {
        format!("(answered with {} bytes)", body.len())
    };
    still_served(&mut peer).await?;
    Ok(format!("{}: {}", header.api, one_line(line)?))
}

/// Asks for far more than the socket's buffers hold and takes none of it.
async fn answers_never_read(target: Target) -> Result<String> {
    const ANSWERS: usize = 64;
    const ANSWER_BYTES: u32 = 1 << 20;
    let began = Instant::now();
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(4096)?;
    let stream = socket.connect(target.broker).await.context("connect")?;
    let mut peer = Peer { stream, heard: BytesMut::new() };
    peer.send(&hello().encode()).await;
    peer.server_hello().await?;
    let request = frame_of(&fetch(target.stock, Offset(0), ANSWER_BYTES), 1);
    for _ in 0..ANSWERS {
        peer.send(&request).await;
    }
    // Longer than a broker waits for bytes to move.
    sleep(Duration::from_secs(50)).await;
    let bytes_max = ANSWERS * ANSWER_BYTES as usize / 2;
    peer.until_closed(bytes_max).await.context("it was to be given up")?;
    Ok(closed_after(began))
}

/// Each byte in time, so the request is a sound one, only slow.
async fn frame_byte_by_byte(target: Target) -> Result<String> {
    let mut peer = Peer::greet(target.broker, ShardId::ANY).await?;
    for byte in frame_of(&MetadataRequest { topics: Some(Vec::new()) }, 7) {
        peer.send(&[byte]).await;
        sleep(Duration::from_millis(100)).await;
    }
    let Last::Frame(header, _) = peer.next().await? else { bail!("closed instead of answering") };
    ensure!(!header.is_error(), "a slow request was refused");
    Ok("(served)".to_owned())
}

fn fetch(topic: TopicId, offset: Offset, max_bytes: u32) -> FetchRequest {
    let partition = PartitionIndex(0);
    let partitions = vec![FetchPartition { topic, partition, offset, max_bytes, leader_epoch: None }];
    FetchRequest { max_wait_ms: 0, min_bytes: 0, max_bytes, partitions }
}

async fn still_served(peer: &mut Peer) -> Result<()> {
    let nodes =
        peer.call(&MetadataRequest { topics: Some(Vec::new()) }).await.context("the connection goes on")?;
    ensure!(!nodes.nodes.is_empty(), "a broker without nodes");
    Ok(())
}

fn one_line(line: String) -> Result<String> {
    ensure!(!line.is_empty() && !line.contains('\n') && line.len() < 400, "not one clear line: {line:?}");
    Ok(line)
}

fn closed_after(began: Instant) -> String {
    format!("(closed after {:.0} s)", began.elapsed().as_secs_f64())
}
