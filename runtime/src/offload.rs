//! CPU-heavy work, moved off the shards onto worker threads.

use crate::driver;

/// Runs `work` on a worker thread and waits for its value; inside a simulated world it runs in place,
/// after a drawn delay. A panic of `work` is raised again here. Dropping the future abandons the
/// value; the work itself still runs to its end once begun.
pub async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if driver::simulated() {
        driver::sim::offload::offload(work).await
    } else {
        driver::uring::offload::offload(work).await
    }
}
