//! The broker goes away and comes back while records are on their way.

mod support;

use std::time::Duration;

use corrente_client::{Client, ErrorKind, Record, RetryPolicy, StartOffset};
use support::FakeBroker;

async fn client(broker: &FakeBroker) -> Client {
    let retry = RetryPolicy { first: Duration::from_millis(5), max: Duration::from_millis(50) };
    Client::builder([broker.address.clone()]).retry(retry).connect().await.expect("connected")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producer_and_consumer_ride_through() {
    let mut broker = FakeBroker::start(2).await;
    broker.create("t", 3);
    let client = client(&broker).await;
    let mut consumer =
        client.consumer().topic("t").from(StartOffset::Earliest).build().await.expect("a consumer");
    let producer = client.producer("t").batch_records(50).build().await.expect("a producer");
    let mut tickets = Vec::new();
    for round in 0..5_u32 {
        for n in 0..400_u32 {
            let record = Record::value((round * 400 + n).to_string()).partition(n % 3);
            tickets.push(producer.send(record).await.expect("accepted"));
            if n == 200 {
                broker.stop().await;
            }
        }
        broker.restart().await;
    }
    for ticket in tickets {
        let _ = ticket.await.expect("acknowledged");
    }
    let report = producer.close().await.expect("closed");
    assert_eq!((report.acked, report.failed), (2000, 0));

    let total: usize = {
        let model = broker.model.lock().expect("no test panicked");
        (0..3).map(|partition| model.records("t", partition).len()).sum()
    };
    assert!(total >= 2000);
    let mut newest = [None; 3];
    let mut distinct = std::collections::BTreeSet::new();
    for _ in 0..total {
        let delivery = consumer.next_record().await.expect("no error").expect("no end");
        let text = String::from_utf8(delivery.value.expect("a value").to_vec()).expect("text");
        let n: u32 = text.parse().expect("a number");
        if distinct.insert(n) {
            let newest = &mut newest[delivery.partition as usize];
            assert!(newest.is_none_or(|newest| newest < n), "{n} first comes after {newest:?}");
            *newest = Some(n);
        }
    }
    assert_eq!(distinct.len(), 2000);
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let mut broker = FakeBroker::start(1).await;
    broker.stop().await;
    let builder = Client::builder([broker.address.clone()]).connect_timeout(Duration::from_millis(300));
    let error = builder.connect().await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable() && !error.maybe_applied());
    let text = error.to_string();
    assert!(text.starts_with("connect") && text.contains(&broker.address), "{text}");
}

#[tokio::test]
async fn a_producer_without_a_broker_fails_its_records_in_time() {
    let mut broker = FakeBroker::start(1).await;
    broker.create("t", 1);
    let client = client(&broker).await;
    let delivery_timeout = Duration::from_millis(300);
    let producer = client.producer("t").delivery_timeout(delivery_timeout).build().await.expect("a producer");
    broker.stop().await;
    let ticket = producer.send(Record::value("x")).await.expect("accepted");
    drop(producer.send(Record::value("y")).await.expect("accepted"));
    let error = ticket.await.expect_err("nobody took it");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let error = producer.flush().await.expect_err("a record failed");
    assert!(error.to_string().starts_with("produce t/0 "), "{error}");
    let report = producer.close().await.expect("closed");
    assert_eq!((report.acked, report.failed), (0, 2));
}

#[tokio::test]
async fn the_end_of_the_client_is_the_end_of_its_tickets() {
    let mut broker = FakeBroker::start(1).await;
    broker.create("t", 1);
    let client = client(&broker).await;
    let producer = client.producer("t").build().await.expect("a producer");
    broker.stop().await;
    let ticket = producer.send(Record::value("x")).await.expect("accepted");
    drop((producer, client));
    assert_eq!(ticket.await.expect_err("closed").kind(), ErrorKind::Closed);
}
