//! A stranger at the Kafka listener. Whatever it says, it gets answers in the order of its requests, each readable in
//! the version that it asked in, or is disconnected.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corrente_protocol::fuzz::Choices;
use corrente_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use corrente_protocol::kafka::create_topics::{CreateTopicsRequest, CreateTopicsResponse, NewTopic};
use corrente_protocol::kafka::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse, DoomedTopic};
use corrente_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use corrente_protocol::kafka::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use corrente_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use corrente_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use corrente_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic, MetadataResponse};
use corrente_protocol::kafka::produce::{ProducePartition, ProduceRequest, ProduceResponse, ProduceTopic};
use corrente_protocol::kafka::{ApiKey, DecodeError, Message, SERVED, Writer};
use corrente_protocol::wire;
use corrente_runtime::socket::Stream;
use corrente_runtime::timer::{sleep, timeout};

use super::{PATIENCE, READ_BLOCK, STRANGER_WAITS, batches};

/// Where the broker listens to Kafka's clients.
pub(super) const LISTENER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 9092);

/// Says what the bytes say.
pub(super) async fn converse(said: Vec<u8>) {
    let mut choices = Choices::new(&said);
    let mut stranger = Stranger::default();
    while !choices.is_empty() {
        match choices.u8() % 8 {
            0 => stranger.connect().await,
            1 => {
                stranger.babbled = true;
                stranger.say(&[Bytes::copy_from_slice(choices.bytes())]).await;
            }
            2 => {
                let (api, version) = served(&mut choices);
                stranger.ask(api, version, choices.bytes(), true).await;
            }
            3 => stranger.hear().await,
            4 => sleep(Duration::from_micros(choices.u16().into())).await,
            _ => stranger.ask_plausibly(&mut choices).await,
        }
    }
    stranger.hear().await;
}

fn served(choices: &mut Choices<'_>) -> (ApiKey, i16) {
    let served = &SERVED[usize::from(choices.u8()) % SERVED.len()];
    let versions = served.newest - served.oldest + 1;
    (served.api, served.oldest + i16::from(choices.u8()) % versions)
}

#[derive(Default)]
struct Stranger {
    stream: Option<Stream>,
    /// It has said something on this connection that was no request of its own making.
    babbled: bool,
    received: BytesMut,
    /// Requests that are not answered yet.
    asked: VecDeque<(ApiKey, i16, i32)>,
    last_correlation: i32,
}

impl Stranger {
    async fn connect(&mut self) {
        let last_correlation = self.last_correlation;
        let stream = timeout(PATIENCE, Stream::connect(LISTENER)).await.ok().and_then(Result::ok);
        *self = Stranger { stream, last_correlation, ..Stranger::default() };
    }

    async fn say(&mut self, chunks: &[Bytes]) {
        let Some(stream) = &mut self.stream else { return };
        if !matches!(timeout(STRANGER_WAITS, stream.write_all(chunks)).await, Ok(Ok(()))) {
            self.stream = None;
        }
    }

    /// `answered` is false for a request that wants no answer.
    async fn ask(&mut self, api: ApiKey, version: i16, body: &[u8], answered: bool) {
        self.last_correlation += 1;
        let mut frame = Vec::new();
        frame.extend(api.code().to_be_bytes());
        frame.extend(version.to_be_bytes());
        frame.extend(self.last_correlation.to_be_bytes());
        // No name.
        frame.extend([0xff, 0xff]);
        if api.is_flexible(version) {
            frame.push(0);
        }
        frame.extend(body);
        if answered {
            self.asked.push_back((api, version, self.last_correlation));
        }
        let len = i32::try_from(frame.len()).expect("a small frame");
        self.say(&[Bytes::copy_from_slice(&len.to_be_bytes()), frame.into()]).await;
    }

    async fn ask_for<M: Message>(&mut self, version: i16, request: M, answered: bool) {
        let mut writer = Writer::new(wire::Writer::new(), M::API.is_flexible(version));
        request.encode(version, &mut writer);
        self.ask(M::API, version, &writer.finish().concat(), answered).await;
    }

    /// Takes in what has come, until nothing comes for a while.
    async fn hear(&mut self) {
        while let Some(stream) = &mut self.stream {
            self.received.reserve(READ_BLOCK);
            match timeout(STRANGER_WAITS, stream.read(&mut self.received)).await {
                Ok(Ok(1..)) => self.understand(),
                Ok(_) => self.stream = None,
                Err(_) => return,
            }
        }
    }

    fn understand(&mut self) {
        while let Some(len) = self.received.first_chunk().map(|len| i32::from_be_bytes(*len)) {
            let len = usize::try_from(len).expect("the broker sends frames");
            if self.received.len() < 4 + len {
                return;
            }
            self.received.advance(4);
            let mut frame = self.received.split_to(len).freeze();
            let correlation = frame.get_i32();
            let asked = self.asked.pop_front();
            let Some((api, version, expected)) = asked.filter(|(.., expected)| *expected == correlation)
            else {
                assert!(self.babbled, "answer {correlation} came where {asked:?} was due");
                return;
            };
            if api.is_flexible(version) && api != ApiKey::ApiVersions {
                assert_eq!(frame.get_u8(), 0, "the header of answer {expected} has tagged fields");
            }
            let read = read(api, version, frame);
            read.unwrap_or_else(|error| panic!("an answer of {api:?} {version} cannot be read: {error}"));
        }
    }

    /// A request that could be meant, about topics of its own.
    async fn ask_plausibly(&mut self, choices: &mut Choices<'_>) {
        let (api, version) = served(choices);
        let name = ["a", "b", ".", ""][usize::from(choices.u8() % 4)].to_owned();
        let index = i32::from(choices.u8() % 4) - 1;
        let number = i32::from(choices.u8()) - 2;
        match api {
            ApiKey::Produce => {
                let acks = i16::from(choices.u8() % 4) - 2;
                let partition = ProducePartition { index, records: vec![batches(choices)] };
                let topic = ProduceTopic { name, partitions: vec![partition], ..ProduceTopic::default() };
                let request = ProduceRequest { acks, topics: vec![topic], ..ProduceRequest::default() };
                self.ask_for(version, request, acks != 0).await;
            }
            ApiKey::Fetch => {
                let partition = FetchPartition {
                    index,
                    fetch_offset: number.into(),
                    max_bytes: number << 8,
                    ..FetchPartition::default()
                };
                let topic = FetchTopic { name, partitions: vec![partition], ..FetchTopic::default() };
                let (max_wait_ms, min_bytes) = (number, i32::from(choices.u8() % 2));
                let topics = vec![topic; usize::from(choices.u8() % 3)];
                let request = FetchRequest { max_wait_ms, min_bytes, topics, ..FetchRequest::default() };
                self.ask_for(version, request, true).await;
            }
            ApiKey::ListOffsets => {
                let partition =
                    ListOffsetsPartition { index, timestamp_ms: number.into(), ..Default::default() };
                let topic = ListOffsetsTopic { name, partitions: vec![partition] };
                let request = ListOffsetsRequest { topics: vec![topic], ..ListOffsetsRequest::default() };
                self.ask_for(version, request, true).await;
            }
            ApiKey::Metadata => {
                let topic = MetadataRequestTopic { name: Some(name), ..MetadataRequestTopic::default() };
                let topics = (number > 0).then(|| vec![topic]);
                self.ask_for(version, MetadataRequest { topics, ..MetadataRequest::default() }, true).await;
            }
            ApiKey::FindCoordinator => {
                let request = FindCoordinatorRequest { key: name, ..FindCoordinatorRequest::default() };
                self.ask_for(version, request, true).await;
            }
            ApiKey::ApiVersions => self.ask_for(version, ApiVersionsRequest::default(), true).await,
            ApiKey::CreateTopics => {
                let replication_factor = i16::from(choices.u8() % 3) - 1;
                let new =
                    NewTopic { name, num_partitions: number % 8, replication_factor, ..NewTopic::default() };
                let validate_only = number == 7;
                let request = CreateTopicsRequest {
                    topics: vec![new],
                    validate_only,
                    ..CreateTopicsRequest::default()
                };
                self.ask_for(version, request, true).await;
            }
            ApiKey::DeleteTopics => {
                let topics = vec![DoomedTopic { name: Some(name), ..DoomedTopic::default() }];
                self.ask_for(version, DeleteTopicsRequest { topics, timeout_ms: 5 }, true).await;
            }
            ApiKey::InitProducerId => {
                let transactional_id = (number > 200).then_some(name);
                let request = InitProducerIdRequest { transactional_id, ..InitProducerIdRequest::default() };
                self.ask_for(version, request, true).await;
            }
        }
    }
}

fn read(api: ApiKey, version: i16, body: Bytes) -> Result<(), DecodeError> {
    match api {
        ApiKey::Produce => ProduceResponse::decode(version, body).map(drop),
        ApiKey::Fetch => FetchResponse::decode(version, body).map(drop),
        ApiKey::ListOffsets => ListOffsetsResponse::decode(version, body).map(drop),
        ApiKey::Metadata => MetadataResponse::decode(version, body).map(drop),
        ApiKey::FindCoordinator => FindCoordinatorResponse::decode(version, body).map(drop),
        ApiKey::ApiVersions => ApiVersionsResponse::decode(version, body).map(drop),
        ApiKey::CreateTopics => CreateTopicsResponse::decode(version, body).map(drop),
        ApiKey::DeleteTopics => DeleteTopicsResponse::decode(version, body).map(drop),
        ApiKey::InitProducerId => InitProducerIdResponse::decode(version, body).map(drop),
    }
}
