//! Shards for tests: unbound, small, and waited for.

#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::disallowed_methods, reason = "the test's own thread waits for shards")]

use corrente_runtime::executor::{Executors, ExecutorsConfig, Placement};
use futures_util::future::FutureExt;

pub fn config(shards: u16) -> ExecutorsConfig {
    ExecutorsConfig { placement: Placement::Unbound, ..ExecutorsConfig::new(shards) }
}

/// Runs `story` on one shard to its end; what panics there panics here.
pub fn on_one_shard<F, Fut>(story: F)
where
    F: Fn() -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    on_shards(1, move |_| story().boxed_local());
}

/// Runs `story(shard)` on each of so many shards to its end; what panics there panics here.
pub fn on_shards<F, Fut>(shards: u16, story: F)
where
    F: Fn(u16) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let mut executors = Executors::start(config(shards), story).expect("shards start here");
    if let Err(panicked) = block_on(executors.stopped()) {
        panic!("{panicked}");
    }
}

/// Any executor will do to wait for shards; this is the smallest.
pub fn block_on<F: Future>(future: F) -> F::Output {
    use std::sync::Arc;
    use std::task::{Context, Poll, Wake, Waker};

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}
