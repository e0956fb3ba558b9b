//! A crash ends everything on its node but the disk, and nothing elsewhere.

use bytes::BytesMut;
use corrente_runtime::{
    executor,
    executor::{Executors, ExecutorsConfig},
    file,
    sim::{World, WorldConfig},
    socket::{Listener, Stream},
    timer,
};
use futures_channel::oneshot;
use std::{cell::Cell, io, net::SocketAddr, path::Path, rc::Rc, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// Calls back into the world when dropped, as guards do.
struct SpawnsWhenDropped(Rc<Cell<u32>>, Option<oneshot::Sender<()>>);

impl Drop for SpawnsWhenDropped {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
        if let Some(sender) = self.1.take() {
            let _ = sender.send(());
        }
        let _ = timer::now();
        executor::spawn(async { unreachable!("spawned on a node that had crashed") }).detach();
    }
}

#[test]
fn tasks_are_dropped_whatever_their_drops_do() {
    for seed in 0..20 {
        let world = World::new(seed, WorldConfig::default());
        let node = world.node("node", [10, 0, 0, 1]);
        let drops = Rc::new(Cell::new(0));
        let counting = drops.clone();
        node.spawn(move || async move {
            for _ in 0..10 {
                let (sender, receiver) = oneshot::channel();
                let guard = SpawnsWhenDropped(counting.clone(), Some(sender));
                executor::spawn(async move {
                    let _guard = guard;
                    timer::sleep(Duration::from_secs(3600)).await;
                })
                .detach();
                let waiting = SpawnsWhenDropped(counting.clone(), None);
                executor::spawn(async move {
                    let _ = receiver.await;
                    drop(waiting);
                })
                .detach();
            }
        })
        .detach();
        world.run_for(Duration::from_secs(1));
        assert_eq!((drops.get(), world.living_tasks()), (0, 20));
        node.crash();
        assert_eq!((drops.get(), world.living_tasks()), (20, 0));
        world.run_for(Duration::from_secs(10_000));
        assert_eq!(world.living_tasks(), 0);
    }
}

#[test]
fn peers_see_a_reset_and_the_port_is_free_again() {
    let world = World::new(3, WorldConfig::default());
    let server = world.node("server", [10, 0, 0, 1]);
    let client = world.node("client", [10, 0, 0, 2]);
    let address = SocketAddr::new(server.address(), 7400);
    let serve = move || async move {
        let listener = Listener::bind(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        timer::sleep(LIMIT).await;
        drop((listener, stream));
    };
    server.spawn(serve).detach();
    let mut seen = client.spawn(move || async move {
        timer::sleep(Duration::from_millis(1)).await;
        let mut stream = Stream::connect(address).await.unwrap();
        stream.read(&mut BytesMut::with_capacity(10)).await.unwrap_err().kind()
    });
    world.run_for(Duration::from_secs(5));
    assert!(!seen.is_finished());
    server.crash();
    world.run_until(|| seen.is_finished(), LIMIT).unwrap();
    assert_eq!(seen.take_output(), Some(io::ErrorKind::ConnectionReset));
    server.spawn(serve).detach();
    world.run_for(Duration::from_millis(1));
    let again = move || async move { Stream::connect(address).await.is_ok() };
    assert_eq!(world.run(&client, LIMIT, again), Ok(true));
}

#[test]
fn a_lock_has_one_holder_until_the_crash() {
    let world = World::new(3, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let other = world.node("other", [10, 0, 0, 2]);
    let take = || async {
        let _lock = file::lock_exclusive(Path::new("/lock")).await?;
        timer::sleep(Duration::from_secs(1000)).await;
        io::Result::Ok(())
    };
    let try_take =
        || async { file::lock_exclusive(Path::new("/lock")).await.map(drop).map_err(|e| e.kind()) };
    node.spawn(take).detach();
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.run(&node, LIMIT, try_take), Ok(Err(io::ErrorKind::WouldBlock)));
    assert_eq!(world.run(&other, LIMIT, try_take), Ok(Ok(())));
    node.crash();
    assert_eq!(world.run(&node, LIMIT, try_take), Ok(Ok(())));
    assert_eq!(world.run(&node, LIMIT, try_take), Ok(Ok(())));
}

#[test]
fn shards_stop_when_their_mains_return_and_are_gone_after_a_crash() {
    let world = World::new(8, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let mains = || async {
        let main = |shard| async move {
            executor::spawn(timer::sleep(Duration::from_secs(3600))).detach();
            timer::sleep(Duration::from_secs(1 + u64::from(shard))).await;
        };
        Executors::start(ExecutorsConfig::new(3), main).unwrap().stopped().await
    };
    let began = world.elapsed();
    assert_eq!(world.run(&node, LIMIT, mains), Ok(Ok(())));
    let took = world.elapsed() - began;
    assert!((Duration::from_secs(3)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert_eq!(world.living_tasks(), 0);
    let running = node.spawn(mains);
    world.run_for(Duration::from_millis(10));
    node.crash();
    assert!(running.is_finished());
    assert_eq!(world.living_tasks(), 0);
}

#[test]
fn a_node_may_crash_from_within_a_task_of_its_own() {
    let world = World::new(8, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let own = node.clone();
    let mut task = node.spawn(move || async move {
        own.crash();
        executor::yield_now().await;
        unreachable!("the task ran on after its node crashed");
    });
    world.run_for(Duration::from_secs(1));
    assert!(task.is_finished());
    assert_eq!(task.take_output(), None::<()>);
}
