//! Time as the core sees it: microseconds since an origin the driver chose. The core never reads a clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment: microseconds since the driver's origin. Never goes back between two calls of the core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl Add<Duration> for Micros {
    type Output = Micros;
    fn add(self, duration: Duration) -> Micros {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Micros(self.0.saturating_add(micros))
    }
}

impl Sub for Micros {
    type Output = Duration;
    /// Zero if `earlier` is in fact later.
    fn sub(self, earlier: Micros) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
