//! Shards: they start or say why not, run what they are given, and report how they ended.

mod shards;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use corrente_runtime::executor::{
    self, Executors, ExecutorsConfig, Idle, Queue, StartError, spawn, spawn_in,
};
use corrente_runtime::mailbox::mailbox;
use corrente_runtime::offload::offload;
use corrente_runtime::{random, timer};
use futures_util::stream::{self, StreamExt};
use shards::{block_on, config, on_one_shard, on_shards};

#[test]
fn every_shard_runs_its_main_once() {
    let seen = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let shared = seen.clone();
    on_shards(3, move |shard| {
        let seen = shared.clone();
        async move {
            seen[usize::from(shard)].fetch_add(1, Ordering::Relaxed);
        }
    });
    assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
}

#[test]
fn pinned_shards_share_the_cpus_there_are() {
    let config = ExecutorsConfig { cpus: Some(vec![first_cpu()]), ..ExecutorsConfig::new(2) };
    let mut executors = Executors::start(config, |_| async {}).expect("round the one cpu");
    block_on(executors.stopped()).expect("both ended well");
    block_on(executors.stopped()).expect("and stay so");
}

#[expect(clippy::disallowed_methods, reason = "the kernel is asked, not a disk")]
fn first_cpu() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let first = allowed.expect("a list").trim().split([',', '-']).next();
    first.expect("a cpu").parse().expect("a number")
}

#[test]
fn a_cpu_that_is_not_there_is_refused_by_name() {
    let config = ExecutorsConfig { cpus: Some(vec![1000]), ..ExecutorsConfig::new(1) };
    let refused = Executors::start(config, |_| async {}).err().expect("refused");
    assert!(refused.to_string().starts_with("cpu 1000 is not available to this process, which may use 0"));
}

#[test]
fn no_shards_are_refused() {
    let refused = Executors::start(config(0), |_| async {}).err().expect("refused");
    assert!(matches!(refused, StartError::NoShards));
}

#[test]
fn a_kernel_without_io_uring_is_named() {
    let config = ExecutorsConfig { refuse_io_uring: true, ..config(1) };
    let refused = Executors::start(config, |_| async {}).err().expect("refused");
    assert_eq!(
        refused.to_string(),
        "this kernel refuses io_uring: it does not know the call; \
         Linux 5.19 or newer is needed, built with io_uring"
    );
}

#[test]
fn a_panic_in_a_main_is_reported_while_others_run_on() {
    let (release, mut released) = mailbox::<()>(1);
    let mut executors = Executors::start(config(2), move |shard| {
        let release = release.clone();
        async move {
            if shard == 1 {
                panic!("shard {shard} has had enough");
            }
            release.send(()).await.expect("heard");
        }
    })
    .expect("shards start here");
    let panicked = block_on(executors.stopped()).expect_err("shard 1 panicked");
    assert_eq!(panicked.shard, 1);
    assert_eq!(panicked.message, "shard 1 has had enough");
    block_on(released.recv()).expect("shard 0 runs");
    assert_eq!(block_on(executors.stopped()).expect_err("still so"), panicked);
}

#[test]
fn a_panic_in_any_task_ends_its_shard() {
    let mut executors =
        Executors::start(config(1), |_| async { spawn(async { panic!("a task has had enough") }).await })
            .expect("shards start here");
    let panicked = block_on(executors.stopped()).expect_err("a task panicked");
    assert_eq!(panicked.message, "a task has had enough");
}

#[test]
fn tasks_run_in_every_queue_and_return_their_value() {
    on_one_shard(|| async {
        for queue in [Queue::Network, Queue::Storage, Queue::Background] {
            assert_eq!(spawn_in(queue, async { 6 * 7 }).await, 42);
        }
        let ran = Rc::new(Cell::new(false));
        let task = spawn({
            let ran = ran.clone();
            async move { ran.set(true) }
        });
        assert!(!ran.get(), "a task never runs inside the call that spawns it");
        task.await;
        assert!(ran.get());
    });
}

#[test]
fn a_dropped_task_is_cancelled_and_a_detached_one_is_not() {
    struct SetOnDrop(Rc<Cell<bool>>);

    impl Drop for SetOnDrop {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    on_one_shard(|| async {
        let dropped = Rc::new(Cell::new(false));
        let guard = SetOnDrop(dropped.clone());
        let task = spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        executor::yield_now().await;
        drop(task);
        while !dropped.get() {
            executor::yield_now().await;
        }

        let done = Rc::new(Cell::new(false));
        let guard = SetOnDrop(done.clone());
        spawn(async move {
            executor::yield_now().await;
            drop(guard);
        })
        .detach();
        while !done.get() {
            executor::yield_now().await;
        }
    });
}

#[test]
fn what_still_waits_when_a_shard_ends_is_dropped() {
    struct CountOnDrop(Arc<AtomicUsize>);

    impl Drop for CountOnDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let dropped = Arc::new(AtomicUsize::new(0));
    let shared = dropped.clone();
    on_one_shard(move || {
        let dropped = shared.clone();
        async move {
            for queue in [Queue::Network, Queue::Storage, Queue::Background] {
                let guard = CountOnDrop(dropped.clone());
                spawn_in(queue, async move {
                    let _guard = guard;
                    timer::sleep(Duration::from_secs(3600)).await;
                })
                .detach();
                let guard = CountOnDrop(dropped.clone());
                spawn_in(queue, async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                })
                .detach();
            }
            executor::yield_now().await;
        }
    });
    assert_eq!(dropped.load(Ordering::Relaxed), 6);
}

#[test]
fn sleep_lasts_and_timeout_ends_what_does_not() {
    on_one_shard(|| async {
        let before = timer::now();
        timer::sleep(Duration::from_millis(5)).await;
        assert!(timer::now() - before >= Duration::from_millis(5));
        assert_eq!(timer::timeout(Duration::from_secs(3600), async { 1 }).await, Ok(1));
        let endless = timer::timeout(Duration::from_millis(1), std::future::pending::<()>()).await;
        assert_eq!(endless, Err(timer::Elapsed));
    });
}

#[test]
fn every_way_to_be_idle_lets_timers_and_files_work() {
    for idle in [Idle::Park, Idle::Spin(Duration::from_micros(100)), Idle::Poll] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        let config = ExecutorsConfig { idle, ..config(1) };
        let mut executors = Executors::start(config, move |_| {
            let path = path.clone();
            async move {
                use corrente_runtime::buffer::AlignedBuf;
                use corrente_runtime::file::{File, OpenOptions, Sync};
                timer::sleep(Duration::from_millis(1)).await;
                let file = File::open(&path, OpenOptions::CREATE_NEW).await.expect("a file");
                let block = AlignedBuf::zeroed(4096).freeze();
                file.write_at(block, 0, Sync::Data).await.expect("written");
                assert_eq!(file.read_at(0, 8192).await.expect("read").len(), 4096);
            }
        })
        .expect("shards start here");
        block_on(executors.stopped()).expect("ended well");
    }
}

#[test]
fn offloaded_work_returns_and_its_panic_comes_back() {
    on_one_shard(|| async {
        let here = std::thread::current().id();
        assert_ne!(offload(|| std::thread::current().id()).await, here);
    });
    let mut executors = Executors::start(config(1), |_| async { offload(|| panic!("too heavy")).await })
        .expect("shards start here");
    assert_eq!(block_on(executors.stopped()).expect_err("panicked").message, "too heavy");
}

#[test]
fn messages_go_between_shards_in_order() {
    const MESSAGES: u32 = 10_000;
    let (sender, receiver) = mailbox::<u32>(16);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    on_shards(2, move |shard| {
        let (sender, receiver) = (sender.clone(), receiver.clone());
        async move {
            if shard == 0 {
                for message in 0..MESSAGES {
                    sender.send(message).await.expect("received");
                }
                return;
            }
            drop(sender);
            let mut receiver = receiver.lock().expect("whole").take().expect("once");
            for message in 0..MESSAGES {
                assert_eq!(receiver.recv().await, Some(message));
            }
        }
    });
}

#[test]
fn chance_differs_from_call_to_call() {
    assert_ne!(random::random_u64(), random::random_u64());
}

#[test]
fn a_shard_that_polls_hears_of_other_threads() {
    const AT_ONCE: usize = 256;
    const CALLS: usize = 60_000;
    // Where it shares its CPU with those it waits for, an alarm of the executor rings at any place.
    let config = ExecutorsConfig { cpus: Some(vec![first_cpu()]), idle: Idle::Poll, ..config(1) };
    let heard = Arc::new(AtomicUsize::new(0));
    let shared = heard.clone();
    let mut executors = Executors::start(config, move |_| {
        let heard = shared.clone();
        async move {
            let calls = stream::iter(0..CALLS).map(|_| offload(|| std::hint::black_box(())));
            let count = calls.buffered(AT_ONCE).count().await;
            heard.store(count, Ordering::Relaxed);
        }
    })
    .expect("one shard");
    block_on(executors.stopped()).expect("it ended well");
    assert_eq!(heard.load(Ordering::Relaxed), CALLS);
}
