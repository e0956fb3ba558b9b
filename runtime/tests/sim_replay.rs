//! The same seed makes the same run, byte for byte; another seed makes another.

use bytes::{Bytes, BytesMut};
use corrente_runtime::{
    buffer::{AlignedBuf, BLOCK},
    executor, file,
    file::{File, OpenOptions, Sync},
    mailbox::mailbox,
    offload::offload,
    random::random_u64,
    sim::{World, WorldConfig},
    socket::{Listener, Stream},
    timer,
};
use std::{net::SocketAddr, path::Path, rc::Rc, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// A server that stores what it is sent, a client that sends, a crash in the middle, and a second life.
fn run(seed: u64) -> (u64, u64) {
    let world = World::new(seed, WorldConfig::default());
    let server = world.node("server", [10, 0, 0, 1]);
    let client = world.node("client", [10, 0, 0, 2]);
    let address = SocketAddr::new(server.address(), 7400);
    let started = server.spawn(move || serve(address));
    world.run_for(Duration::from_millis(1));
    client.spawn(move || send(address)).detach();
    world.run_for(Duration::from_millis(20));
    server.crash();
    drop(started);
    server.spawn(move || serve(address)).detach();
    let sent = world.run(&client, LIMIT, move || send(address));
    (world.trace_hash(), sent.unwrap_or_else(|error| panic!("{error}")))
}

async fn serve(address: SocketAddr) {
    let listener = Listener::bind(address).await.unwrap();
    file::create_dir_all(Path::new("/data")).await.unwrap();
    let options = OpenOptions { read: true, write: true, create: true, create_new: false };
    let log = File::open(Path::new("/data/log"), options).await.unwrap();
    file::sync_dir(Path::new("/data")).await.unwrap();
    let (sender, mut receiver) = mailbox::<BytesMut>(4);
    executor::spawn(async move {
        let mut position = 0;
        while let Some(received) = receiver.recv().await {
            let sum = offload(move || received.iter().map(|&byte| u64::from(byte)).sum::<u64>()).await;
            let mut block = AlignedBuf::zeroed(BLOCK);
            block[..8].copy_from_slice(&sum.to_le_bytes());
            log.write_at(block.freeze(), position, Sync::Data).await.unwrap();
            position += BLOCK as u64;
        }
    })
    .detach();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let sender = sender.clone();
        executor::spawn(async move {
            loop {
                let mut received = BytesMut::with_capacity(1024);
                match stream.read(&mut received).await {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
                if stream.write_all(&[Bytes::from_static(b"k")]).await.is_err() {
                    return;
                }
                sender.send(received).await.unwrap();
            }
        })
        .detach();
    }
}

async fn send(address: SocketAddr) -> u64 {
    let mut stream = loop {
        match Stream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => timer::sleep(Duration::from_millis(1)).await,
        }
    };
    let mut drawn = 0;
    for _ in 0..50 {
        drawn ^= random_u64();
        let message = Bytes::from(drawn.to_le_bytes().repeat(16));
        let mut answer = BytesMut::with_capacity(64);
        if stream.write_all(&[message]).await.is_err() || stream.read(&mut answer).await.is_err() {
            return drawn;
        }
        executor::yield_if_needed().await;
    }
    drawn
}

#[test]
fn the_same_seed_makes_the_same_run() {
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn another_seed_makes_another_run() {
    let mut hashes: Vec<u64> = (0..20).map(|seed| run(seed).0).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20);
}

#[test]
fn a_world_that_is_dropped_drops_its_tasks() {
    let held = Rc::new(());
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let inside = held.clone();
    node.spawn(move || async move {
        let inner = inside.clone();
        executor::spawn(async move {
            timer::sleep(Duration::from_secs(3600)).await;
            drop(inner);
        })
        .await;
        drop(inside);
    })
    .detach();
    world.run_for(Duration::from_secs(1));
    assert_eq!(Rc::strong_count(&held), 3);
    drop((world, node));
    assert_eq!(Rc::strong_count(&held), 1);
}
