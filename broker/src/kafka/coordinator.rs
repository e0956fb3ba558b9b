//! Find coordinator: there is none yet, for neither groups nor transactions are served.

use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

/// The key is a transactional id.
const TRANSACTION: i8 = 1;

/// Says so for every key: to a transactional producer, which asks this before anything else, in one of the few answers
/// after which clients give up rather than ask again for ever.
pub fn none(request: FindCoordinatorRequest, version: i16) -> FindCoordinatorResponse {
    let (error, line) = match request.key_type {
        TRANSACTION => {
            (KafkaError::TransactionalIdAuthorizationFailed, "this broker does not serve transactions")
        }
        _ => (KafkaError::CoordinatorNotAvailable, "this broker does not serve consumer groups"),
    };
    let coordinators = request.into_keys(version).into_iter().map(|key| Coordinator {
        key,
        error: error.code(),
        error_message: Some(line.to_owned()),
        ..Coordinator::default()
    });
    FindCoordinatorResponse { throttle_ms: 0, coordinators: coordinators.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(key_type: i8, version: i16) -> Vec<i16> {
        let keys = vec!["a".to_owned(), "b".to_owned()];
        let response = none(FindCoordinatorRequest { key: "a".to_owned(), key_type, keys }, version);
        response.coordinators.iter().map(|coordinator| coordinator.error).collect()
    }

    #[test]
    fn transactional_producers_give_up_and_groups_ask_again() {
        assert_eq!(errors(0, 0), [15]);
        assert_eq!(errors(0, 4), [15, 15]);
        assert_eq!(errors(1, 3), [53]);
        assert_eq!(errors(1, 4), [53, 53]);
    }
}
