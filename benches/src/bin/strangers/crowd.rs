//! A crowd: idle connections by the thousand, and producers that together queue far more than the broker has room for.
//!
//! Nobody waits for an answer before it sends the next request. What must happen is back-pressure: the broker reads no
//! faster than it can write, TCP holds the senders back, and in the end every record is acknowledged.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use corrente_protocol::api::{Message, MetadataRequest, ProduceResponse};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::{ShardId, TopicId, TopicName};
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

use crate::broker_process::memory;
use crate::bytes_on_the_wire::{batch, frame_of, produce};
use crate::peer::Peer;

/// With what surrounds it a request of 1 MiB, the largest batch a topic takes by default.
const RECORD_BYTES: usize = (1 << 20) - 256;
/// How often it is printed how far everybody is.
const REPORT: Duration = Duration::from_secs(5);

/// What is to be done.
pub struct Crowd {
    pub broker: SocketAddr,
    pub pid: u32,
    pub idle: usize,
    pub producers: usize,
    pub requests: usize,
    pub topic: String,
}

/// How far all producers are, in requests.
#[derive(Default)]
struct Progress {
    handed_over: Cell<usize>,
    acknowledged: Cell<usize>,
    waiting_most: Cell<usize>,
}

impl Progress {
    fn count_handed_over(&self) {
        self.handed_over.set(self.handed_over.get() + 1);
        let waiting = self.handed_over.get() - self.acknowledged.get();
        self.waiting_most.set(self.waiting_most.get().max(waiting));
    }

    fn count_acknowledged(&self) {
        self.acknowledged.set(self.acknowledged.get() + 1);
    }
}

/// Lets the crowd in, waits until every request is acknowledged, and asks every idle connection whether it is served.
pub async fn run(crowd: Crowd) -> Result<()> {
    LocalSet::new().run_until(run_here(crowd)).await
}

async fn run_here(crowd: Crowd) -> Result<()> {
    let Crowd { broker, pid, producers, requests, .. } = crowd;
    let (topic, homes) = find_topic(broker, &crowd.topic).await?;
    let mut idle = Vec::with_capacity(crowd.idle);
    for _ in 0..crowd.idle {
        idle.push(Peer::greet(broker, ShardId::ANY).await?);
    }
    println!("{} idle connections: broker at {} MiB", idle.len(), memory(pid)?.resident_mib);

    let value = vec![b'x'; RECORD_BYTES];
    let records = batch(&[&value]);
    let queued = producers * requests;
    println!("queueing {queued} requests of {} bytes on {producers} connections", records.len());
    let began = Instant::now();
    let progress = Rc::new(Progress::default());
    let mut under_way = JoinSet::new();
    for producer in 0..producers {
        let partition = producer % homes.len();
        let peer = Peer::greet(broker, homes[partition]).await?;
        let request = produce(topic, u32::try_from(partition)?, records.clone());
        under_way.spawn_local(queue(peer, frame_of(&request, 1), requests, progress.clone()));
    }
    let reporting = tokio::task::spawn_local(report(pid, progress.clone()));
    while let Some(ended) = under_way.join_next().await {
        ended??;
    }
    reporting.abort();
    let seconds = began.elapsed().as_secs_f64();
    ensure!(
        progress.acknowledged.get() == queued,
        "{} of {queued} acknowledged",
        progress.acknowledged.get()
    );
    println!(
        "all {queued} requests ({} MiB) acknowledged in {seconds:.1} s; at most {} MiB were in the broker and in \
         socket buffers at once",
        (queued * records.len()) >> 20,
        (progress.waiting_most.get() * records.len()) >> 20
    );
    for peer in &mut idle {
        peer.call(&MetadataRequest { topics: Some(Vec::new()) }).await.context("an idle connection")?;
    }
    let memory = memory(pid)?;
    println!("all {} idle connections are served; broker at {} MiB", idle.len(), memory.resident_mib);
    println!("the broker's resident memory at most: {} MiB", memory.peak_mib);
    Ok(())
}

/// The topic's id, and the shard of each partition.
async fn find_topic(broker: SocketAddr, name: &str) -> Result<(TopicId, Vec<ShardId>)> {
    let mut peer = Peer::greet(broker, ShardId::ANY).await?;
    let metadata = peer.call(&MetadataRequest { topics: Some(vec![TopicName::new(name)?]) }).await?;
    let topic = metadata.topics.first().context("no topic in the response")?;
    ensure!(topic.error == ErrorCode::None, "topic '{name}': {:?}", topic.error);
    Ok((topic.id, topic.partitions.iter().map(|partition| partition.shard).collect()))
}

/// Sends `requests` times the same frame without waiting, and meanwhile takes as many acknowledgements.
async fn queue(peer: Peer, frame: Bytes, requests: usize, progress: Rc<Progress>) -> Result<()> {
    let (mut hearing, mut speaking) = peer.into_split();
    let sending = async {
        for _ in 0..requests {
            speaking.write_all(&frame).await.context("sending")?;
            progress.count_handed_over();
        }
        anyhow::Ok(())
    };
    let receiving = async {
        for _ in 0..requests {
            let response = ProduceResponse::decode(0, hearing.answer().await?)?;
            let part = response.partitions.first().context("no partition in the response")?;
            ensure!(part.error == ErrorCode::None, "{:?}: {:?}", part.error, part.message);
            progress.count_acknowledged();
        }
        anyhow::Ok(())
    };
    tokio::try_join!(sending, receiving)?;
    Ok(())
}

/// Prints how far everybody is, until it is dropped.
async fn report(pid: u32, progress: Rc<Progress>) {
    loop {
        sleep(REPORT).await;
        let (handed_over, acknowledged) = (progress.handed_over.get(), progress.acknowledged.get());
        // That the broker is gone shows where its connections end.
        let resident = memory(pid).map_or(0, |memory| memory.resident_mib);
        eprintln!(
            "{handed_over} requests handed over, {acknowledged} acknowledged, broker at {resident} MiB"
        );
    }
}
