//! Time is virtual, order is drawn, and what goes wrong is told with its seed.

use corrente_runtime::{
    executor,
    sim::{RunError, World, WorldConfig},
    timer,
};
use std::{
    cell::RefCell,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn timers_fire_in_order_and_time_costs_nothing() {
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let fired = Rc::new(RefCell::new(Vec::new()));
    let log = fired.clone();
    node.spawn(move || async move {
        for hours in [3, 1, 2, 5, 4] {
            let log = log.clone();
            executor::spawn(async move {
                let began = timer::now();
                timer::sleep(Duration::from_secs(hours * 3600)).await;
                assert!(began.elapsed() >= Duration::from_secs(hours * 3600));
                log.borrow_mut().push(hours);
            })
            .detach();
        }
    })
    .detach();
    world.run_for(Duration::from_secs(6 * 3600));
    assert_eq!(*fired.borrow(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_timeout_cuts_off_and_leaves_no_timer_behind() {
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let outcome = world.run(&node, LIMIT, || async {
        let quick = timer::timeout(Duration::from_secs(3600), timer::sleep(Duration::from_secs(1))).await;
        let slow = timer::timeout(Duration::from_secs(1), timer::sleep(Duration::from_secs(3600))).await;
        (quick.is_ok(), slow.is_ok())
    });
    assert_eq!(outcome, Ok((true, false)));
    let hang = world.run(&node, LIMIT, std::future::pending::<()>);
    assert!(matches!(hang, Err(RunError::Hang { .. })), "{hang:?}");
}

#[test]
fn ready_tasks_run_in_every_order() {
    let mut orders = BTreeSet::new();
    for seed in 0..100 {
        let world = World::new(seed, WorldConfig::default());
        let node = world.node("node", [10, 0, 0, 1]);
        let order = world.run(&node, LIMIT, || async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..3)
                .map(|number| {
                    let order = order.clone();
                    executor::spawn(async move { order.borrow_mut().push(number) })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        });
        orders.insert(order.unwrap());
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_dropped_task_is_cancelled_and_a_detached_one_is_not() {
    let world = World::new(1, WorldConfig::default());
    let node = world.node("node", [10, 0, 0, 1]);
    let ran = world.run(&node, LIMIT, || async {
        let ran = Rc::new(RefCell::new(Vec::new()));
        let [cancelled, detached] = ["cancelled", "detached"].map(|name| {
            let ran = ran.clone();
            executor::spawn(async move {
                timer::sleep(Duration::from_secs(1)).await;
                ran.borrow_mut().push(name);
            })
        });
        detached.detach();
        drop(cancelled);
        timer::sleep(Duration::from_secs(2)).await;
        ran.take()
    });
    assert_eq!(ran.unwrap(), ["detached"]);
    assert_eq!(world.living_tasks(), 0);
}

#[test]
fn a_panic_names_its_seed() {
    let world = World::new(4711, WorldConfig::default());
    let node = world.node("north", [10, 0, 0, 1]);
    node.spawn(|| async { panic!("two leaders in epoch {}", 3) }).detach();
    let run = catch_unwind(AssertUnwindSafe(|| world.run_for(LIMIT)));
    let payload = run.expect_err("the task panicked");
    let message = payload.downcast_ref::<String>().expect("a message with the seed");
    assert!(message.starts_with("seed 4711: a task of node north shard 0 panicked"), "{message}");
    assert!(message.ends_with("two leaders in epoch 3"), "{message}");
}

#[test]
fn a_hang_is_told_with_its_tasks() {
    let world = World::new(7, WorldConfig::default());
    let node = world.node("north", [10, 0, 0, 1]);
    node.spawn(std::future::pending::<()>).detach();
    let error = world.run_until(|| false, LIMIT).unwrap_err();
    let told = error.to_string();
    assert!(told.starts_with("seed 7: hangs after "), "{told}");
    assert!(told.contains("with 1 tasks; north shard 0 task of "), "{told}");
    assert!(told.contains("sim_scheduler.rs"), "{told}");
}

#[test]
fn a_busy_task_does_not_stop_the_clock() {
    let world = World::new(7, WorldConfig::default());
    let node = world.node("north", [10, 0, 0, 1]);
    let spun = world.run(&node, LIMIT, || async {
        let deadline = timer::now() + Duration::from_millis(1);
        while timer::now() < deadline {
            executor::yield_now().await;
        }
    });
    assert_eq!(spun, Ok(()));
    let endless = world.run(&node, Duration::from_millis(1), || async {
        loop {
            executor::yield_now().await;
        }
    });
    let limit = Duration::from_millis(1);
    assert_eq!(endless, Err::<(), _>(RunError::TimedOut { seed: 7, limit }));
}
