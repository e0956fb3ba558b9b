//! Work for worker threads, done in place after a drawn delay.

use super::{context, timer};

pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let world = context::current().world;
    timer::sleep_ns(world.draw_delay_ns(&world.config.offload)).await;
    work()
}
