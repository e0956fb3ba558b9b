//! Records go in through a producer and come out of a consumer, over real sockets.

mod support;

use std::collections::BTreeMap;

use corrente_client::{
    Client, Compression, Durability, ErrorKind, NewTopic, Offset, OffsetSpec, OutOfRange, Partitioner,
    Record, StartOffset,
};
use futures_util::StreamExt;
use support::FakeBroker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_in_comes_out() {
    let broker = FakeBroker::start(2).await;
    let client =
        Client::builder([broker.address.clone()]).client_id("test").connect().await.expect("connected");
    client.admin().create_topic(NewTopic::new("orders", 4)).await.expect("created");
    let producer = client.producer("orders").compression(Compression::Lz4).build().await.expect("a producer");
    let mut tickets = Vec::new();
    for n in 0..5_000_u32 {
        let record =
            Record::value(format!("value {n}")).key(format!("key {}", n % 100)).header("n", n.to_string());
        tickets.push(producer.send(record.timestamp_ms(i64::from(n))).await.expect("accepted"));
    }
    producer.flush().await.expect("all acknowledged");
    for (n, ticket) in (0..).zip(tickets) {
        let receipt = ticket.await.expect("acknowledged");
        assert_eq!((receipt.timestamp_ms, receipt.durability), (n, Durability::IsrFlushed));
    }
    let report = producer.close().await.expect("closed");
    assert_eq!((report.acked, report.failed), (5_000, 0));

    let mut consumer = client
        .consumer()
        .topic("orders")
        .from(StartOffset::Earliest)
        .until_end()
        .build()
        .await
        .expect("a consumer");
    let mut by_key: BTreeMap<Vec<u8>, Vec<i64>> = BTreeMap::new();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.expect("a record");
        let n = delivery.timestamp_ms;
        assert_eq!(delivery.value.as_deref(), Some(format!("value {n}").as_bytes()));
        assert_eq!(delivery.headers[0].value.as_deref(), Some(n.to_string().as_bytes()));
        by_key.entry(delivery.key.expect("a key").to_vec()).or_default().push(n);
    }
    assert_eq!(by_key.len(), 100);
    for numbers in by_key.values() {
        assert_eq!(numbers.len(), 50);
        assert!(numbers.is_sorted(), "the order of a key is kept");
    }
}

#[tokio::test]
async fn a_consumer_waits_for_what_comes() {
    let broker = FakeBroker::start(1).await;
    broker.create("t", 1);
    let client = Client::builder([broker.address.clone()]).connect().await.expect("connected");
    let mut consumer =
        client.consumer().topic("t").from(StartOffset::Earliest).build().await.expect("a consumer");
    let producer = client.producer("t").build().await.expect("a producer");
    for n in 0..3_u64 {
        let receipt = producer.send_and_wait(Record::value("x")).await.expect("acknowledged");
        assert_eq!(receipt.offset, Offset(n));
        let delivery = consumer.next_record().await.expect("no error").expect("no end");
        assert_eq!(delivery.offset, Offset(n));
    }
    let receipts =
        producer.send_batch(vec![Record::value("a"), Record::tombstone("k")]).await.expect("accepted");
    let receipts = receipts.await.expect("acknowledged");
    assert_eq!((receipts.len(), receipts[0].base_offset, receipts[0].records), (1, Offset(3), 2));
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(consumer.next_batch().await.expect("no error").expect("no end").records);
    }
    assert_eq!(seen[1].key.as_deref(), Some(&b"k"[..]));
    assert_eq!(seen[1].value, None);
}

#[tokio::test]
async fn keyless_records_are_spread() {
    let broker = FakeBroker::start(1).await;
    broker.create("t", 4);
    let client = Client::builder([broker.address.clone()]).connect().await.expect("connected");
    let producer =
        client.producer("t").partitioner(Partitioner::RoundRobin).build().await.expect("a producer");
    for _ in 0..8 {
        drop(producer.send(Record::value("x")).await.expect("accepted"));
    }
    producer.flush().await.expect("acknowledged");
    let ends = client.admin().list_offsets("t", OffsetSpec::Latest).await.expect("offsets");
    assert_eq!(ends.iter().map(|end| end.offset.0).collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[tokio::test]
async fn sending_waits_for_room_and_only_for_room() {
    let broker = FakeBroker::start(1).await;
    broker.create("t", 1);
    let client = Client::builder([broker.address.clone()]).connect().await.expect("connected");
    let producer = client.producer("t").max_unacked_bytes(1000).build().await.expect("a producer");
    let error = producer.send(Record::value(vec![0; 2000])).await.expect_err("never fits");
    assert_eq!(error.kind(), ErrorKind::MessageTooLarge);
    for _ in 0..500 {
        drop(producer.send(Record::value(vec![7; 400])).await.expect("accepted"));
    }
    let report = producer.close().await.expect("closed");
    assert_eq!(report.acked, 500);
}

#[tokio::test]
async fn errors_say_what_and_where() {
    let broker = FakeBroker::start(1).await;
    broker.create("t", 1);
    let client = Client::builder([broker.address.clone()]).connect().await.expect("connected");
    let error = client.producer("nope").build().await.expect_err("no such topic");
    assert_eq!(error.kind(), ErrorKind::TopicNotFound);
    assert!(error.to_string().starts_with("produce nope "), "{error}");
    let error = client.producer("../../etc").build().await.expect_err("no name");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let error = client.admin().create_topic(NewTopic::new("t", 1)).await.expect_err("exists");
    assert_eq!(error.kind(), ErrorKind::TopicAlreadyExists);
    let error = client.admin().describe_topic("t").await.expect_err("the model cannot");
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    let producer = client.producer("t").build().await.expect("a producer");
    let error = producer.send(Record::value("x").partition(9)).await.expect_err("no such partition");
    assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    let mut consumer =
        client.consumer().topic("t").from(StartOffset::At(Offset(5))).build().await.expect("a consumer");
    let error = consumer.next_batch().await.expect_err("out of range");
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert!(consumer.next_batch().await.expect("no error").is_none(), "no partition is left");
    let consumer =
        client.consumer().topic("t").from(StartOffset::At(Offset(5))).on_out_of_range(OutOfRange::Earliest);
    let mut consumer = consumer.build().await.expect("a consumer");
    let _ = producer.send_and_wait(Record::value("x")).await.expect("acknowledged");
    assert_eq!(consumer.next_record().await.expect("no error").expect("no end").offset, Offset(0));
}
