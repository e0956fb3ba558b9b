//! One file per API: from a decoded request to its response.
//!
//! A handler finds the home of what is asked for, asks there, and builds the response. It knows no
//! socket and no file.

pub mod delete_records;
pub mod fetch;
pub mod init_producer_id;
pub mod list_offsets;
pub mod metadata;
pub mod produce;
mod reading;
pub mod subscribe;
pub mod topic;

use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use corrente_protocol::api::{
    AddPartitionsRequest, AdjustSubscriptionRequest, AlterTopicRequest, ApiKey, CreateTopicRequest,
    DeleteRecordsRequest, DeleteTopicRequest, DescribeTopicRequest, FetchRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, Request, SubscribeRequest,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::frame::Durability;
use corrente_protocol::ids::TopicPartition;
use corrente_runtime::executor::spawn;
use corrente_runtime::sync::Permit;

use crate::call::Call;
use crate::connection::Connection;
use crate::native;
use crate::shard::Shard;

/// Starts a request; returns once the connection may read the next one.
///
/// Appends are ordered when this returns: two requests of one connection append in the order in
/// which they came. Everything else goes on beside the reading.
pub async fn start(shard: &Rc<Shard>, connection: &Rc<Connection>, request: native::Request, turn: Permit) {
    let native::Request { header, body, permit, received } = request;
    let call = Call::new(header, received, connection.clone(), turn);
    if let Some(error) = header.api.refuse(header.version) {
        return call.refuse(error, refusal_line(header.api, header.version)).await;
    }
    if call.is_late() {
        let line = format!("the deadline of {} ms passed before the request was started", header.deadline_ms);
        return call.refuse(ErrorCode::RequestTimedOut, line).await;
    }
    match header.api {
        ApiKey::Produce => produce::start(shard, call, body, permit).await,
        ApiKey::Fetch => {
            let Some((call, request)) = decode::<FetchRequest>(call, body).await else { return };
            if let Some(twice) = named_twice(request.partitions.iter().map(fetch::id_of)) {
                return refuse_twice(call, twice).await;
            }
            let shard = shard.clone();
            spawn(async move {
                let (response, memory) = fetch::answer(&shard, &call.connection, request).await;
                drop(permit);
                call.answer(&response, memory).await;
            })
            .detach();
        }
        ApiKey::Subscribe => {
            let Some((call, request)) = decode::<SubscribeRequest>(call, body).await else { return };
            if let Some(twice) = named_twice(request.partitions.iter().map(subscribe::id_of)) {
                return refuse_twice(call, twice).await;
            }
            subscribe::start(shard, call, request, permit).await;
        }
        ApiKey::AdjustSubscription => {
            let Some((call, request)) = decode::<AdjustSubscriptionRequest>(call, body).await else { return };
            let response = subscribe::adjust(&call.connection, &request);
            call.answer_soon(&response, Durability::Received);
        }
        ApiKey::ListOffsets => answer::<ListOffsetsRequest, _>(shard, call, body, list_offsets::answer).await,
        ApiKey::Metadata => answer::<MetadataRequest, _>(shard, call, body, metadata::answer).await,
        ApiKey::CreateTopic => answer::<CreateTopicRequest, _>(shard, call, body, topic::create).await,
        ApiKey::DeleteTopic => answer::<DeleteTopicRequest, _>(shard, call, body, topic::delete).await,
        ApiKey::AlterTopic => answer::<AlterTopicRequest, _>(shard, call, body, topic::alter).await,
        ApiKey::AddPartitions => {
            answer::<AddPartitionsRequest, _>(shard, call, body, topic::add_partitions).await
        }
        ApiKey::DescribeTopic => answer::<DescribeTopicRequest, _>(shard, call, body, topic::describe).await,
        ApiKey::DeleteRecords => {
            answer::<DeleteRecordsRequest, _>(shard, call, body, delete_records::answer).await
        }
        ApiKey::InitProducerId => {
            answer::<InitProducerIdRequest, _>(shard, call, body, init_producer_id::answer).await
        }
        other => call.refuse(ErrorCode::UnsupportedApi, format!("{other} is not served")).await,
    }
}

/// A partition that is named more than once, if any.
fn named_twice(mut named: impl Iterator<Item = TopicPartition>) -> Option<TopicPartition> {
    let mut seen = BTreeSet::new();
    named.find(|id| !seen.insert(*id))
}

async fn refuse_twice(call: Call, twice: TopicPartition) {
    call.refuse(ErrorCode::InvalidRequest, format!("partition {twice} is named twice")).await;
}

fn refusal_line(api: ApiKey, version: u16) -> String {
    match api.newest_version() {
        None => format!("{api} is not known to this broker"),
        Some(newest) => {
            format!("version {version} of {api} is not spoken by this broker, the newest is {newest}")
        }
    }
}

/// Decodes the body, or answers the call with what is wrong in it.
async fn decode<R: Request>(call: Call, body: Bytes) -> Option<(Call, R)> {
    match R::decode_bounded(call.header.version, body) {
        Ok(request) => Some((call, request)),
        Err(error) => {
            call.refuse(error.error_code(), error.to_string()).await;
            None
        }
    }
}

/// Decodes the body and answers beside the reading of further requests.
async fn answer<R, F>(shard: &Rc<Shard>, call: Call, body: Bytes, handle: impl FnOnce(Rc<Shard>, R) -> F)
where
    R: Request,
    R::Response: 'static,
    F: Future<Output = R::Response> + 'static,
{
    let Some((call, request)) = decode::<R>(call, body).await else { return };
    let response = handle(shard.clone(), request);
    spawn(async move {
        // A short question may have a long answer: none is made while the peer does not take the earlier ones.
        call.room().await;
        call.answer(&response.await, None).await
    })
    .detach();
}
