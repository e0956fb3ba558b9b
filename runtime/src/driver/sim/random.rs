//! Random numbers from the seed of the world.

use super::context;

pub(crate) fn fill_random(bytes: &mut [u8]) {
    context::current().world.fill_random(bytes);
}
