//! A fetch session (KIP-227): the broker remembers what a connection fetches, requests name only what changes, and
//! answers only what is new.
//!
//! A session ends with its connection; a client that goes on with it elsewhere is told that there is none, and begins
//! another one. So there is one at most for each connection, and what all of a shard's hold is bounded.

use std::collections::BTreeMap;
use std::ops::Bound;

use corrente_protocol::kafka::KafkaError;
use corrente_protocol::kafka::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchedPartition, NO_SESSION,
};
use corrente_runtime::sync::{Budget, Permit};

/// What a partition takes in memory here, about.
const PARTITION_BYTES: usize = 256;

/// Epoch of a request that wants no session, or ends the one it names.
const FINAL_EPOCH: i32 = -1;
/// Epoch of a request that begins a session.
const INITIAL_EPOCH: i32 = 0;

/// Name and id of a topic as the client gives them, and the partition.
type Key = (String, [u8; 16], i32);

/// The session of a connection, or none.
#[derive(Default)]
pub struct FetchSession {
    /// [`NO_SESSION`] if there is none; then there are no partitions either.
    id: i32,
    /// What the next request has to say.
    epoch: i32,
    partitions: BTreeMap<Key, Kept>,
    /// Behind this the next answer begins: whoever had records waits for the others.
    last_served: Option<Key>,
}

struct Kept {
    asked: FetchPartition,
    /// High watermark and log start as the client knows them; none after an error.
    told: Option<(i64, i64)>,
    _memory: Permit,
}

/// How a request is to be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// All of it, in no session.
    Sessionless,
    /// All of it, and a session begins.
    Full,
    /// What is new.
    Incremental,
}

impl FetchSession {
    /// Takes note of what a request changes, and has it name all that is to be read. `new_id` is above 0.
    pub fn begin(
        &mut self,
        request: &mut FetchRequest,
        new_id: i32,
        memory: &Budget,
    ) -> Result<Mode, KafkaError> {
        assert!(new_id > NO_SESSION, "session {new_id}");
        match request.session_epoch {
            FINAL_EPOCH => {
                if request.session_id == self.id {
                    *self = FetchSession::default();
                }
                Ok(Mode::Sessionless)
            }
            INITIAL_EPOCH => {
                *self = FetchSession { id: new_id, epoch: 1, ..FetchSession::default() };
                if self.keep(&request.topics, memory) {
                    return Ok(Mode::Full);
                }
                *self = FetchSession::default();
                Ok(Mode::Sessionless)
            }
            epoch => {
                if request.session_id == NO_SESSION || request.session_id != self.id {
                    return Err(KafkaError::FetchSessionIdNotFound);
                }
                if epoch != self.epoch {
                    return Err(KafkaError::InvalidFetchSessionEpoch);
                }
                self.epoch = epoch.checked_add(1).unwrap_or(1);
                self.forget(request);
                if !self.keep(&request.topics, memory) {
                    // The client begins anew, and is answered without a session then.
                    *self = FetchSession::default();
                    return Err(KafkaError::FetchSessionIdNotFound);
                }
                request.topics = self.topics();
                Ok(Mode::Incremental)
            }
        }
    }

    fn forget(&mut self, request: &FetchRequest) {
        for topic in &request.forgotten {
            for index in &topic.partitions {
                self.partitions.remove(&(topic.name.clone(), topic.id, *index));
            }
        }
    }

    /// Whether there was room for all of them.
    fn keep(&mut self, topics: &[FetchTopic], memory: &Budget) -> bool {
        for topic in topics {
            for partition in &topic.partitions {
                let key = (topic.name.clone(), topic.id, partition.index);
                if let Some(kept) = self.partitions.get_mut(&key) {
                    kept.asked = partition.clone();
                    continue;
                }
                let Some(permit) = memory.try_acquire(PARTITION_BYTES + topic.name.len()) else {
                    return false;
                };
                self.partitions.insert(key, Kept { asked: partition.clone(), told: None, _memory: permit });
            }
        }
        true
    }

    /// Everything that is fetched, those first that waited longest.
    fn topics(&self) -> Vec<FetchTopic> {
        let (behind, before) = match &self.last_served {
            Some(last) => (
                self.partitions.range((Bound::Excluded(last), Bound::Unbounded)),
                Some(self.partitions.range(..=last)),
            ),
            None => (self.partitions.range::<Key, _>(..), None),
        };
        let mut topics: Vec<FetchTopic> = Vec::new();
        for ((name, id, _), kept) in behind.chain(before.into_iter().flatten()) {
            match topics.last_mut().filter(|topic| topic.name == *name && topic.id == *id) {
                Some(topic) => topic.partitions.push(kept.asked.clone()),
                None => topics.push(FetchTopic {
                    name: name.clone(),
                    id: *id,
                    partitions: vec![kept.asked.clone()],
                }),
            }
        }
        topics
    }

    /// Takes note of what the client is told, and leaves out what it knows.
    pub fn end(&mut self, response: &mut FetchResponse, mode: Mode) {
        if mode == Mode::Sessionless {
            return;
        }
        response.session_id = self.id;
        for topic in &mut response.topics {
            let (name, id) = (&topic.name, topic.id);
            topic.partitions.retain(|partition| {
                let is_news = self.note((name.clone(), id, partition.index), partition);
                is_news || mode == Mode::Full
            });
        }
        response.topics.retain(|topic| !topic.partitions.is_empty());
    }

    /// Whether the client does not know this yet.
    fn note(&mut self, key: Key, partition: &FetchedPartition) -> bool {
        let Some(kept) = self.partitions.get_mut(&key) else { return true };
        let told = (partition.error == 0).then_some((partition.high_watermark, partition.log_start_offset));
        let is_news = told.is_none() || kept.told != told || !partition.records.is_empty();
        kept.told = told;
        if !partition.records.is_empty() {
            self.last_served = Some(key);
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use corrente_protocol::kafka::fetch::{FetchedTopic, ForgottenTopic};

    fn topics(names: &[(&str, &[i32])]) -> Vec<FetchTopic> {
        let partition = |index: &i32| FetchPartition { index: *index, ..FetchPartition::default() };
        let topic = |(name, indexes): &(&str, &[i32])| FetchTopic {
            name: (*name).to_owned(),
            partitions: indexes.iter().map(partition).collect(),
            ..FetchTopic::default()
        };
        names.iter().map(topic).collect()
    }

    fn request(session: (i32, i32), asked: &[(&str, &[i32])]) -> FetchRequest {
        let (session_id, session_epoch) = session;
        FetchRequest { session_id, session_epoch, topics: topics(asked), ..FetchRequest::default() }
    }

    /// What a request comes to when every partition is at `high_watermark`, and those named have records.
    fn answer(request: &FetchRequest, high_watermark: i64, with_records: &[i32]) -> FetchResponse {
        let fetched = |partition: &FetchPartition| FetchedPartition {
            index: partition.index,
            high_watermark,
            log_start_offset: 0,
            records: with_records
                .contains(&partition.index)
                .then(|| Bytes::from_static(b"b"))
                .into_iter()
                .collect(),
            ..FetchedPartition::default()
        };
        let topic = |topic: &FetchTopic| FetchedTopic {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(fetched).collect(),
            ..FetchedTopic::default()
        };
        FetchResponse { topics: request.topics.iter().map(topic).collect(), ..FetchResponse::default() }
    }

    fn told(response: &FetchResponse) -> Vec<i32> {
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.index).collect()
    }

    fn asked(request: &FetchRequest) -> Vec<i32> {
        request.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.index).collect()
    }

    #[test]
    fn a_session_tells_what_is_new_and_whoever_had_records_comes_last() {
        let (mut session, memory) = (FetchSession::default(), Budget::new(1 << 20));
        let mut first = request((0, 0), &[("t", &[0, 1, 2])]);
        assert_eq!(session.begin(&mut first, 9, &memory), Ok(Mode::Full));
        let mut response = answer(&first, 5, &[]);
        session.end(&mut response, Mode::Full);
        assert_eq!((response.session_id, told(&response)), (9, vec![0, 1, 2]));

        let mut second = request((9, 1), &[]);
        assert_eq!(session.begin(&mut second, 10, &memory), Ok(Mode::Incremental));
        assert_eq!(asked(&second), [0, 1, 2]);
        let mut response = answer(&second, 5, &[1]);
        session.end(&mut response, Mode::Incremental);
        assert_eq!((response.session_id, told(&response)), (9, vec![1]));

        let mut third = request((9, 2), &[("u", &[7])]);
        third.forgotten =
            vec![ForgottenTopic { name: "t".to_owned(), partitions: vec![0], ..ForgottenTopic::default() }];
        assert_eq!(session.begin(&mut third, 10, &memory), Ok(Mode::Incremental));
        assert_eq!(asked(&third), [2, 7, 1]);
        let mut response = answer(&third, 6, &[]);
        session.end(&mut response, Mode::Incremental);
        assert_eq!(told(&response), [2, 7, 1], "the high watermark moved");
    }

    #[test]
    fn other_sessions_and_epochs_are_refused() {
        let (mut session, memory) = (FetchSession::default(), Budget::new(1 << 20));
        let refused =
            |session: &mut FetchSession, at| session.begin(&mut request(at, &[]), 10, &memory).err();
        assert_eq!(refused(&mut session, (9, 1)), Some(KafkaError::FetchSessionIdNotFound));
        session.begin(&mut request((0, 0), &[("t", &[0])]), 9, &memory).unwrap();
        assert_eq!(refused(&mut session, (8, 1)), Some(KafkaError::FetchSessionIdNotFound));
        assert_eq!(refused(&mut session, (9, 2)), Some(KafkaError::InvalidFetchSessionEpoch));
        assert_eq!(refused(&mut session, (9, 1)), None);
        assert_eq!(refused(&mut session, (9, -1)), None);
        assert_eq!(refused(&mut session, (9, 2)), Some(KafkaError::FetchSessionIdNotFound), "it was ended");
        assert_eq!(memory.available(), memory.total());
    }

    #[test]
    fn without_room_there_is_no_session() {
        let (mut session, memory) = (FetchSession::default(), Budget::new(600));
        let mut many = request((0, 0), &[("t", &[0, 1, 2])]);
        assert_eq!(session.begin(&mut many, 9, &memory), Ok(Mode::Sessionless));
        assert_eq!((asked(&many), memory.available()), (vec![0, 1, 2], 600));
        assert_eq!(session.begin(&mut request((0, 0), &[("t", &[0])]), 9, &memory), Ok(Mode::Full));
        let mut more = request((9, 1), &[("t", &[1, 2])]);
        assert_eq!(session.begin(&mut more, 10, &memory), Err(KafkaError::FetchSessionIdNotFound));
        assert_eq!(memory.available(), 600);
    }

    #[test]
    fn what_is_forgotten_gives_its_memory_back() {
        let (mut session, memory) = (FetchSession::default(), Budget::new(1 << 20));
        session.begin(&mut request((0, 0), &[("t", &[0, 1])]), 9, &memory).unwrap();
        let held = memory.available();
        for epoch in 1..100 {
            // A client that pauses a partition and takes it up again names it in both lists, turn by turn.
            let mut again = request((9, epoch), &[("t", if epoch % 2 == 0 { &[1] } else { &[] })]);
            let partitions = if epoch % 2 == 0 { Vec::new() } else { vec![1] };
            again.forgotten =
                vec![ForgottenTopic { name: "t".to_owned(), partitions, ..ForgottenTopic::default() }];
            session.begin(&mut again, 10, &memory).unwrap();
        }
        session.begin(&mut request((9, 100), &[("t", &[1])]), 10, &memory).unwrap();
        assert_eq!(memory.available(), held);
    }

    #[test]
    fn an_error_is_told_each_time_and_its_end_as_well() {
        let (mut session, memory) = (FetchSession::default(), Budget::new(1 << 20));
        session.begin(&mut request((0, 0), &[("t", &[0])]), 9, &memory).unwrap();
        let mut tell = |error: i16| {
            let mut response = answer(&request((0, 0), &[("t", &[0])]), 5, &[]);
            response.topics[0].partitions[0].error = error;
            session.end(&mut response, Mode::Incremental);
            told(&response).len()
        };
        assert_eq!([tell(0), tell(0), tell(3), tell(3), tell(0), tell(0)], [1, 0, 1, 1, 1, 0]);
    }
}
