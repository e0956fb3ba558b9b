//! The Kafka listener: Kafka's wire protocol in front of the native handlers.
//!
//! Every file here translates one api both ways: names and ids of topics, errors, defaults and sessions are Kafka's,
//! what is done to logs and topics is the native handlers' affair. Record batches pass through as they are.

mod coordinator;
mod fetch;
mod fetch_session;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod names;
mod produce;
mod server;
mod topics;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::kafka::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use corrente_protocol::kafka::{ApiKey, DecodeError, KafkaError, Message, RequestHeader, response_frame};
use corrente_runtime::sync::Permit;

use self::fetch_session::FetchSession;
use crate::connection::Connection;
use crate::shard::Shard;

pub use server::accept;

/// A response on its way: awaited when its turn has come, for responses leave in the order of their requests.
type Answer = Pin<Box<dyn Future<Output = Response>>>;

/// A response, or none to a request that wants none.
#[derive(Default)]
struct Response {
    frame: Vec<Bytes>,
    /// The memory that the frame pins.
    memory: Vec<Permit>,
}

impl Response {
    fn new<M: Message>(header: &RequestHeader, response: M) -> Response {
        Response {
            frame: response_frame(header.correlation_id, header.version, response),
            memory: Vec::new(),
        }
    }
}

/// A request that was read.
struct Request {
    header: RequestHeader,
    body: Bytes,
    /// What the body holds of the shard's memory, until the request is done: those that wait for their turn count.
    memory: Permit,
}

/// Whoever asks, and what is remembered for it.
#[derive(Clone)]
struct Client {
    connection: Rc<Connection>,
    fetch_session: Rc<RefCell<FetchSession>>,
}

/// Starts a request. Appends are in their logs' memory when this returns, so two requests of one connection append in
/// the order in which they came; all else is done when the answer is awaited.
async fn start(shard: &Rc<Shard>, client: &Client, request: Request) -> Result<Answer, DecodeError> {
    let shard = shard.clone();
    match request.header.api {
        ApiKey::Produce => produce::start(&shard, client.clone(), request).await,
        ApiKey::Fetch => fetch::start(shard, client.clone(), request),
        ApiKey::ListOffsets => answer(request, move |asked, _| list_offsets::answer(shard, asked)),
        ApiKey::Metadata => answer(request, move |asked, _| metadata::answer(shard, asked)),
        ApiKey::FindCoordinator => answer(request, async |asked, version| coordinator::none(asked, version)),
        ApiKey::ApiVersions => answer(request, async |_: ApiVersionsRequest, _| {
            ApiVersionsResponse::of_this_broker(KafkaError::None.code())
        }),
        ApiKey::CreateTopics => answer(request, move |asked, _| topics::create(shard, asked)),
        ApiKey::DeleteTopics => answer(request, move |asked, _| topics::delete(shard, asked)),
        ApiKey::InitProducerId => answer(request, move |asked, _| init_producer_id::answer(shard, asked)),
    }
}

/// Decodes a request; its handler runs when the answer is awaited.
fn answer<Q, R, F>(
    request: Request,
    handle: impl FnOnce(Q, i16) -> F + 'static,
) -> Result<Answer, DecodeError>
where
    Q: Message + 'static,
    R: Message,
    F: Future<Output = R> + 'static,
{
    let Request { header, body, memory } = request;
    let asked = Q::decode(header.version, body)?;
    Ok(Box::pin(async move {
        let response = Response::new(&header, handle(asked, header.version).await);
        drop(memory);
        response
    }))
}
