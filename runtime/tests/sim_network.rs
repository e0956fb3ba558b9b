//! Streams between nodes keep their order, push back, part and heal.

use bytes::{Bytes, BytesMut};
use corrente_runtime::{
    executor,
    executor::{Executors, ExecutorsConfig},
    mailbox::mailbox,
    sim::{Node, World, WorldConfig},
    socket::{DetachedStream, Listener, Stream},
    timer,
};
use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(600);
const PORT: u16 = 7400;

fn pair(seed: u64, config: WorldConfig) -> (World, Node, Node, SocketAddr) {
    let world = World::new(seed, config);
    let server = world.node("server", [10, 0, 0, 1]);
    let client = world.node("client", [10, 0, 0, 2]);
    let address = SocketAddr::new(server.address(), PORT);
    (world, server, client, address)
}

async fn read_to_end(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let mut part = BytesMut::with_capacity(1000);
        match stream.read(&mut part).await? {
            0 => return Ok(all),
            _ => all.extend_from_slice(&part),
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8).collect()
}

#[test]
fn bytes_arrive_whole_and_in_order() {
    for seed in 0..50 {
        let (world, server, client, address) = pair(seed, WorldConfig::default());
        let mut received = server.spawn(move || async move {
            let listener = Listener::bind(address).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            read_to_end(&mut stream).await.unwrap()
        });
        client
            .spawn(move || async move {
                timer::sleep(Duration::from_millis(1)).await;
                let (_read, mut write) = Stream::connect(address).await.unwrap().into_split();
                for part in pattern(500_000).chunks(40_000) {
                    let chunks: Vec<Bytes> = part.chunks(900).map(Bytes::copy_from_slice).collect();
                    write.write_all(&chunks).await.unwrap();
                }
                write.shutdown().await.unwrap();
            })
            .detach();
        world.run_until(|| received.is_finished(), LIMIT).unwrap();
        assert!(received.take_output() == Some(pattern(500_000)), "seed {seed}");
    }
}

#[test]
fn a_writer_waits_for_a_reader_that_does_not_read() {
    let mut config = WorldConfig::default();
    config.network.buffer_bytes = 10_000;
    let (world, server, client, address) = pair(5, config);
    let sent = Rc::new(Cell::new(0));
    let counting = sent.clone();
    server
        .spawn(move || async move {
            let listener = Listener::bind(address).await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            timer::sleep(Duration::from_secs(10)).await;
            assert_eq!(read_to_end(&mut stream).await.unwrap().len(), 100_000);
        })
        .detach();
    let done = client.spawn(move || async move {
        timer::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await.unwrap();
        for _ in 0..100 {
            stream.write_all(&[Bytes::from(vec![1; 1000])]).await.unwrap();
            counting.set(counting.get() + 1);
        }
    });
    world.run_for(Duration::from_secs(5));
    assert_eq!(sent.get(), 10);
    world.run_until(|| done.is_finished(), LIMIT).unwrap();
    assert_eq!(sent.get(), 100);
}

#[test]
fn a_parted_stream_waits_and_goes_on_when_healed() {
    for seed in 0..20 {
        let (world, server, client, address) = pair(seed, WorldConfig::default());
        let received = Rc::new(Cell::new(0));
        let counting = received.clone();
        server
            .spawn(move || async move {
                let listener = Listener::bind(address).await.unwrap();
                let (mut stream, _) = listener.accept().await.unwrap();
                loop {
                    let mut part = BytesMut::with_capacity(100);
                    stream.read(&mut part).await.unwrap();
                    assert!(part.iter().enumerate().all(|(i, &byte)| byte as usize == counting.get() + i));
                    counting.set(counting.get() + part.len());
                }
            })
            .detach();
        client
            .spawn(move || async move {
                timer::sleep(Duration::from_millis(1)).await;
                let mut stream = Stream::connect(address).await.unwrap();
                for byte in 0..100 {
                    stream.write_all(&[Bytes::from(vec![byte])]).await.unwrap();
                    timer::sleep(Duration::from_millis(100)).await;
                }
                timer::sleep(LIMIT).await;
            })
            .detach();
        world.run_for(Duration::from_secs(2));
        world.partition(&client, &server);
        let before = received.get();
        assert!(before > 0, "seed {seed}");
        world.run_for(Duration::from_secs(5));
        assert_eq!(received.get(), before, "seed {seed}: bytes crossed a blocked way");
        world.heal(&client, &server);
        world.run_until(|| received.get() == 100, LIMIT).unwrap();
    }
}

#[test]
fn connecting_is_refused_without_listener_and_waits_for_a_blocked_way() {
    let (world, server, client, address) = pair(9, WorldConfig::default());
    let connect = move || async move { Stream::connect(address).await.map(drop).map_err(|e| e.kind()) };
    assert_eq!(world.run(&client, LIMIT, connect), Ok(Err(io::ErrorKind::ConnectionRefused)));
    let listening = move || async move {
        let listener = Listener::bind(address).await.unwrap();
        let again = Listener::bind(address).await.err().map(|error| error.kind());
        assert_eq!(again, Some(io::ErrorKind::AddrInUse));
        loop {
            listener.accept().await.unwrap();
        }
    };
    server.spawn(listening).detach();
    world.run_for(Duration::from_millis(1));
    assert_eq!(world.run(&client, LIMIT, connect), Ok(Ok(())));
    world.partition(&server, &client);
    assert_eq!(world.run(&client, LIMIT, connect), Ok(Err(io::ErrorKind::TimedOut)));
    let healed = client.spawn(connect);
    world.run_for(Duration::from_secs(2));
    assert!(!healed.is_finished());
    world.heal_all();
    world.run_until(|| healed.is_finished(), LIMIT).unwrap();
}

#[test]
fn a_drawn_reset_reaches_both_ends() {
    let mut config = WorldConfig::default();
    config.network.reset_chance = 0.1;
    let (world, server, client, address) = pair(4, config);
    let served = server.spawn(move || async move {
        let listener = Listener::bind(address).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
    let sent = world.run(&client, LIMIT, move || async move {
        timer::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await.unwrap();
        loop {
            if let Err(error) = stream.write_all(&[Bytes::from_static(b"hello")]).await {
                return error.kind();
            }
        }
    });
    assert_eq!(sent, Ok(io::ErrorKind::ConnectionReset));
    world.run_until(|| served.is_finished(), LIMIT).unwrap();
}

#[test]
fn a_reset_met_while_writing_reaches_the_reader_of_the_same_end() {
    let mut config = WorldConfig::default();
    config.network.reset_chance = 0.1;
    let (world, server, client, address) = pair(4, config);
    server
        .spawn(move || async move {
            let listener = Listener::bind(address).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            timer::sleep(LIMIT * 2).await;
            drop(stream);
        })
        .detach();
    let read = world.run(&client, LIMIT, move || async move {
        timer::sleep(Duration::from_millis(1)).await;
        let (mut reader, mut writer) = Stream::connect(address).await.unwrap().into_split();
        let reading = executor::spawn(async move { reader.read(&mut BytesMut::with_capacity(10)).await });
        while writer.write_all(&[Bytes::from_static(b"hello")]).await.is_ok() {
            timer::sleep(Duration::from_millis(1)).await;
        }
        reading.await.unwrap_err().kind()
    });
    assert_eq!(read, Ok(io::ErrorKind::ConnectionReset));
}

#[test]
fn a_stream_moves_to_another_shard_with_nothing_lost() {
    let (world, server, client, address) = pair(2, WorldConfig::default());
    server
        .spawn(move || async move {
            let (sender, receiver) = mailbox::<DetachedStream>(1);
            let receiver = Arc::new(Mutex::new(Some(receiver)));
            let main = move |shard| {
                let (sender, receiver) = (sender.clone(), receiver.clone());
                async move {
                    if shard == 0 {
                        let listener = Listener::bind(address).await.unwrap();
                        let (mut stream, _) = listener.accept().await.unwrap();
                        let mut hello = BytesMut::with_capacity(5);
                        while hello.len() < 5 {
                            stream.read(&mut hello).await.unwrap();
                        }
                        sender.send(stream.detach()).await.unwrap();
                    } else {
                        let mut receiver = receiver.lock().unwrap().take().unwrap();
                        let mut stream = receiver.recv().await.unwrap().attach().unwrap();
                        let rest = read_to_end(&mut stream).await.unwrap();
                        stream.write_all(&[Bytes::from(rest)]).await.unwrap();
                    }
                }
            };
            let mut shards = Executors::start(ExecutorsConfig::new(2), main).unwrap();
            shards.stopped().await.unwrap();
        })
        .detach();
    let echoed = world.run(&client, LIMIT, move || async move {
        timer::sleep(Duration::from_millis(1)).await;
        let (mut read, mut write) = Stream::connect(address).await.unwrap().into_split();
        write.write_all(&[Bytes::from_static(b"hello and the rest")]).await.unwrap();
        write.shutdown().await.unwrap();
        let mut echoed = BytesMut::with_capacity(100);
        while read.read(&mut echoed).await.unwrap() > 0 {}
        echoed.to_vec()
    });
    assert_eq!(echoed.unwrap(), b" and the rest");
}

#[test]
fn a_connection_within_a_node_works_by_its_loopback_address() {
    let (world, server, ..) = pair(2, WorldConfig::default());
    let found = world.run(&server, LIMIT, || async {
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connecting = executor::spawn(async move { Stream::connect(address).await.unwrap() });
        let (accepted, peer) = listener.accept().await.unwrap();
        let connected = connecting.await;
        assert_eq!(connected.local_addr().unwrap(), peer);
        assert_eq!(connected.peer_addr().unwrap(), accepted.local_addr().unwrap());
        address.port()
    });
    assert_ne!(found.unwrap(), 0);
}
