//! Subscribe: record batches sent the moment the high watermark passes them, as far as there is credit.

mod followed;

use std::rc::Rc;

use corrente_protocol::api::{
    AdjustSubscriptionRequest, AdjustSubscriptionResponse, FetchResponse, SubscribePartition,
    SubscribeRequest,
};
use corrente_protocol::error_code::ErrorCode;
use corrente_protocol::ids::TopicPartition;
use corrente_runtime::executor::{spawn, yield_if_needed};
use corrente_runtime::sync::Permit;

use self::followed::{Followed, Next};
use super::reading;
use crate::call::Call;
use crate::connection::Connection;
use crate::shard::Shard;
use crate::subscriptions::{OpenError, Subscription};

/// Which partition is asked for.
pub fn id_of(part: &SubscribePartition) -> TopicPartition {
    TopicPartition { topic: part.topic, partition: part.partition }
}

/// Opens a subscription; it is served beside the reading of further requests.
pub async fn start(shard: &Rc<Shard>, call: Call, request: SubscribeRequest, of_request: Permit) {
    let SubscribeRequest { credit, ref partitions, .. } = request;
    let subscriptions = &call.connection.subscriptions;
    let opened =
        subscriptions.open(call.header.correlation_id, credit, partitions.len(), &shard.memory.sessions);
    match opened {
        Ok(subscription) => {
            let followed = Followed::new(shard.clone(), &request);
            spawn(async move {
                drop((request, of_request));
                serve(call, &subscription, followed).await;
            })
            .detach();
        }
        Err(error @ OpenError::IsOpen(_)) => call.refuse(ErrorCode::InvalidRequest, error.to_string()).await,
        Err(error) => call.refuse(ErrorCode::Busy, error.to_string()).await,
    }
}

/// Gives a subscription credit, or ends it.
pub fn adjust(connection: &Connection, request: &AdjustSubscriptionRequest) -> AdjustSubscriptionResponse {
    let subscription = connection.subscriptions.find(request.subscription);
    if let Some(subscription) = &subscription {
        subscription.adjust(request.credit, request.ends);
    }
    AdjustSubscriptionResponse { found: subscription.is_some() }
}

/// Sends until the subscription ends.
async fn serve(call: Call, subscription: &Subscription, mut followed: Followed) {
    let connection = &call.connection;
    let (last, memory) = loop {
        // A peer that does not take what was sent is sent no more, heartbeats included.
        connection.room_for_more().await;
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
                let partitions = vec![reading::read(followed.shard(), position, None).await];
                break (FetchResponse { partitions }, None);
            }
            Next::End => break (FetchResponse { partitions: Vec::new() }, None),
        }
        // Where all is in memory nothing above ever waits.
        yield_if_needed().await;
    };
    connection.subscriptions.close(call.header.correlation_id);
    call.answer(&last, memory.into_iter().flatten()).await;
}
