//! Whether this machine lets shards start, found out by starting some that do nothing.

pub use corrente_runtime::executor::StartError;
use corrente_runtime::executor::{Executors, ExecutorsConfig, Placement};

/// Starts as many shards as a node would, rings and locked memory included, and ends them again. They keep to no core,
/// so that a broker that runs beside them is left alone.
pub async fn start_shards(shards: u16) -> Result<(), StartError> {
    let config = ExecutorsConfig { placement: Placement::Unbound, ..ExecutorsConfig::new(shards) };
    let mut executors = Executors::start(config, |_| async {})?;
    executors.stopped().await.expect("a shard that does nothing does not panic");
    Ok(())
}
