//! How long to wait before the next attempt: jittered, exponential, bounded. The budget (when to stop) belongs
//! to whoever retries: a delivery timeout or a request timeout.

use std::time::Duration;

/// The shape of the waits between attempts.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// The first wait, before jitter.
    pub first: Duration,
    /// No wait is longer than this, before jitter.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy { first: Duration::from_millis(20), max: Duration::from_secs(1) }
    }
}

impl RetryPolicy {
    /// The wait before the attempt that follows `failures` failed ones (at least 1): doubling, spread evenly over
    /// half to one and a half of it, so that many clients do not come back in step.
    pub fn wait(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let base = self.first.saturating_mul(1 << doublings).min(self.max);
        base.mul_f64(0.5 + rng.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_bound() {
        let policy = RetryPolicy { first: Duration::from_millis(10), max: Duration::from_millis(80) };
        let mut rng = fastrand::Rng::with_seed(7);
        for (failures, base) in [(1, 10), (2, 20), (3, 40), (4, 80), (5, 80), (4_000_000_000, 80)] {
            let wait = policy.wait(failures, &mut rng);
            let (least, most) = (Duration::from_millis(base) / 2, Duration::from_millis(base) * 3 / 2);
            assert!(least <= wait && wait <= most, "wait {wait:?} outside {least:?}..={most:?}");
        }
    }
}
