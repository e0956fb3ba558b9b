//! What a simulated machine says of itself.

use super::context;

pub(crate) fn memory_limit_bytes() -> u64 {
    context::current().world.config.memory_bytes
}

pub(crate) fn cpu_count() -> usize {
    context::current().world.config.cpus
}
