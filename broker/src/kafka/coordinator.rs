//! Find coordinator: there is none yet, for neither groups nor transactions are served.

use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

/// Says so for every key.
pub fn none(request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let coordinators = request.into_keys(version).into_iter().map(|key| Coordinator {
        key,
        error: KafkaError::CoordinatorNotAvailable.code(),
        error_message: Some("this broker serves neither consumer groups nor transactions".to_owned()),
        ..Coordinator::default()
    });
    FindCoordinatorResponse { throttle_ms: 0, coordinators: coordinators.collect() }
}
