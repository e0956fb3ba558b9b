//! A broker that keeps nothing: on loopback, in Corrente's own protocol, it acknowledges every batch at once.
//!
//! What a run against it reaches is the ceiling of the generator, the SDK and the kernel's loopback together. It writes
//! no disk, checks no batch and has nothing to read; each batch is told that it is its partition's first.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use corrente_protocol::api::{
    ApiKey, CreateTopicRequest, CreateTopicResponse, DescribeTopicRequest, DescribeTopicResponse,
    ErrorResponse, Message, MetadataRequest, MetadataResponse, NodeEndpoint, PartitionDescription,
    PartitionMetadata, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceResponse,
    StageTimes, TopicMetadata,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::{
    Cut, Durability, FLAG_ERROR, MAX_FRAME_DEFAULT, RequestHeader, ResponseHeader, cut_request,
    response_frame,
};
use corrente_protocol::hello::{CLIENT_HELLO_LEN, ClientHello, ServerHello, choose_version};
use corrente_protocol::ids::{LeaderEpoch, NodeId, Offset, PartitionIndex, ShardId, TopicId, TopicName};
use corrente_protocol::record_batch::headers;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::cpus::pin_this_thread;

/// One that serves until it is dropped.
#[derive(Debug)]
pub struct NullBroker {
    address: SocketAddr,
    _runtime: Runtime,
}

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(0);
const READ_BLOCK: usize = 256 * 1024;

impl NullBroker {
    /// Serves at any free port, with a thread for each of `cpus`; with one thread, anywhere, if there is none.
    pub fn start(cpus: &[usize]) -> Result<NullBroker> {
        // Its threads inherit the CPUs of the thread that makes them.
        let made = std::thread::scope(|scope| scope.spawn(|| runtime(cpus)).join());
        let runtime = made.map_err(|_| anyhow!("the null broker panicked while it started"))??;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).context("listening on loopback")?;
        let address = listener.local_addr()?;
        runtime.spawn(accept(listener, Arc::new(Topics { address, created: Mutex::default() })));
        Ok(NullBroker { address, _runtime: runtime })
    }

    /// Where it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn runtime(cpus: &[usize]) -> Result<Runtime> {
    pin_this_thread(cpus)?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(cpus.len().max(1)).thread_name("null-broker").enable_io();
    builder.build().context("starting the null broker")
}

async fn accept(listener: TcpListener, topics: Arc<Topics>) {
    // A connection that ends for whatever reason fails the batches that its client had in flight.
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(serve(socket, Arc::clone(&topics)));
    }
}

async fn serve(mut socket: TcpStream, topics: Arc<Topics>) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut hello = [0; CLIENT_HELLO_LEN];
    socket.read_exact(&mut hello).await?;
    let version = choose_version(&ClientHello::decode(&hello)?).context("no version in common")?;
    let hello = ServerHello {
        version,
        error: ErrorCode::None,
        shards: 1,
        shard: SHARD,
        node: NODE,
        frame_len_max: MAX_FRAME_DEFAULT,
        flags: 0,
        text: String::new(),
    };
    socket.write_all(&hello.encode()).await?;
    let mut received = BytesMut::new();
    let mut answers = Vec::new();
    loop {
        while let Cut::Frame(header, body) = cut_request(&mut received, MAX_FRAME_DEFAULT)? {
            topics.answer(header, body)?.iter().for_each(|chunk| answers.extend_from_slice(chunk));
        }
        // All that arrived together is answered together.
        socket.write_all(&answers).await?;
        answers.clear();
        received.reserve(READ_BLOCK);
        if socket.read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    }
}

/// The topics that were created, by name with their partitions. None is ever deleted.
#[derive(Debug)]
struct Topics {
    address: SocketAddr,
    created: Mutex<Vec<(String, u32)>>,
}

impl Topics {
    fn answer(&self, header: RequestHeader, body: Bytes) -> Result<Vec<Bytes>> {
        let version = header.version;
        match header.api {
            ApiKey::Produce => {
                let request = ProduceRequest::decode(version, body)?;
                let partition = |partition: &ProducePartition| acknowledged(partition, header.durability);
                let partitions = request.partitions.iter().map(partition).collect::<Result<_>>()?;
                // Nothing takes it any time.
                let stage_times = request.wants_stage_times.then(StageTimes::default);
                Ok(frame(header, &ProduceResponse { partitions, stage_times }))
            }
            ApiKey::Metadata => Ok(frame(header, &self.metadata(&MetadataRequest::decode(version, body)?))),
            ApiKey::CreateTopic => {
                Ok(frame(header, &self.create(&CreateTopicRequest::decode(version, body)?)))
            }
            ApiKey::DescribeTopic => {
                Ok(frame(header, &self.describe(&DescribeTopicRequest::decode(version, body)?)))
            }
            other => {
                let message = Some(format!("a null broker does not serve {}", other.name()));
                let refusal = ErrorResponse { error: ErrorCode::UnsupportedApi, message };
                let refused = ResponseHeader { flags: FLAG_ERROR, ..header.response() };
                Ok(response_frame(refused, |writer| refusal.encode(version, writer)))
            }
        }
    }

    fn create(&self, request: &CreateTopicRequest) -> CreateTopicResponse {
        let mut created = self.lock();
        if let Some(index) = created.iter().position(|(name, _)| *name == request.name) {
            return CreateTopicResponse {
                error: ErrorCode::TopicAlreadyExists,
                message: None,
                id: id(index),
            };
        }
        created.push((request.name.clone(), request.partitions));
        CreateTopicResponse { error: ErrorCode::None, message: None, id: id(created.len() - 1) }
    }

    fn describe(&self, request: &DescribeTopicRequest) -> DescribeTopicResponse {
        let created = self.lock();
        let found = created.iter().enumerate().find(|(_, (name, _))| *name == request.name);
        let (error, id, partitions) = match found {
            Some((index, (_, partitions))) => (ErrorCode::None, id(index), *partitions),
            None => (ErrorCode::UnknownTopicOrPartition, TopicId::NIL, 0),
        };
        let partition = |index| PartitionDescription {
            leader: NODE,
            shard: SHARD,
            ..PartitionDescription::nothing_known(PartitionIndex(index))
        };
        let partitions = (0..partitions).map(partition).collect();
        DescribeTopicResponse { error, message: None, id, configs: Vec::new(), partitions }
    }

    fn metadata(&self, request: &MetadataRequest) -> MetadataResponse {
        let created = self.lock();
        let wanted = |name: &TopicName| request.topics.as_ref().is_none_or(|topics| topics.contains(name));
        let topic = |(index, (name, partitions)): (usize, &(String, u32))| {
            let name = TopicName::new(name).ok().filter(wanted)?;
            let partitions = (0..*partitions).map(led).collect();
            Some(TopicMetadata { name, id: id(index), error: ErrorCode::None, message: None, partitions })
        };
        let node = NodeEndpoint {
            node: NODE,
            host: self.address.ip().to_string(),
            port: self.address.port(),
            shards: 1,
        };
        MetadataResponse {
            cluster_id: [0; 16],
            metadata_version: created.len() as u64,
            controller: NODE,
            nodes: vec![node],
            topics: created.iter().enumerate().filter_map(topic).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, u32)>> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The id of the topic that was created after so many others.
fn id(index: usize) -> TopicId {
    TopicId::from_random((index as u128).to_le_bytes())
}

fn led(index: u32) -> PartitionMetadata {
    PartitionMetadata {
        index: PartitionIndex(index),
        error: ErrorCode::None,
        leader: NODE,
        shard: SHARD,
        leader_epoch: LeaderEpoch(0),
        replicas: vec![NODE],
        isr: vec![NODE],
    }
}

fn acknowledged(partition: &ProducePartition, receipt: Durability) -> Result<ProducePartitionResponse> {
    let mut records = 0;
    for header in headers(&partition.batches) {
        records += u64::from(header?.1.record_count.cast_unsigned());
    }
    if records == 0 {
        bail!("an append without a record");
    }
    Ok(ProducePartitionResponse {
        topic: partition.topic,
        partition: partition.partition,
        error: ErrorCode::None,
        message: None,
        base_offset: Offset(0),
        end_offset: Offset(records),
        log_append_time_ms: -1,
        log_start_offset: Offset(0),
        receipt,
    })
}

fn frame(header: RequestHeader, response: &impl Message) -> Vec<Bytes> {
    let answered = ResponseHeader { receipt: header.durability, ..header.response() };
    response_frame(answered, |writer| response.encode(header.version, writer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::produce_plan;
    use crate::plan::{Extent, Pace, Work};
    use std::time::Duration;

    #[test]
    fn every_batch_is_acknowledged() {
        let broker = NullBroker::start(&[]).unwrap();
        let mut plan = produce_plan();
        plan.brokers = vec![broker.address().to_string()];
        let Work::Produce(work) = &mut plan.work else { unreachable!() };
        (work.pace, work.extent) = (Pace::ClosedLoop, Extent::Records(2_000));
        work.warmup = Duration::ZERO;
        let outcome = crate::run(&plan, &Arc::default()).unwrap();
        assert_eq!((outcome.report.records, outcome.report.errors), (2_000, 0));
    }
}
