//! When each record batch is due.
//!
//! An open loop is a promise made before the run: batch `j` is due at a time that follows from the rate alone, whatever
//! the broker does. A closed loop has no such promise; there a batch is due when an earlier one has made room for it.

use std::time::Duration;

/// The arrival times of a run, counted in record batches from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schedule {
    /// A constant rate. Every record of a batch is due when its batch is due.
    Open {
        /// Records per second over all workers; at least 1.
        records_per_s: u64,
        /// Records in each batch; at least 1.
        batch_records: u64,
    },
    /// As fast as acknowledgements make room.
    Closed,
}

impl Schedule {
    /// When batch `index` is due, from the start of the run. `None` in a closed loop: due at once.
    pub fn due(&self, index: u64) -> Option<Duration> {
        match *self {
            Schedule::Open { records_per_s, batch_records } => {
                let records = u128::from(index) * u128::from(batch_records);
                Some(duration_from_nanos(records * 1_000_000_000 / u128::from(records_per_s)))
            }
            Schedule::Closed => None,
        }
    }

    /// How many batches are due before `end`, an exclusive bound. `None` in a closed loop: nobody can know.
    pub fn batches_before(&self, end: Duration) -> Option<u64> {
        match *self {
            Schedule::Open { records_per_s, batch_records } => {
                // due(j) < end  <=>  floor(j·b·10⁹/r) < end  <=>  j·b·10⁹ < end·r
                let numerator = end.as_nanos() * u128::from(records_per_s);
                let per_batch = u128::from(batch_records) * 1_000_000_000;
                Some(u64::try_from(numerator.div_ceil(per_batch)).unwrap_or(u64::MAX))
            }
            Schedule::Closed => None,
        }
    }
}

fn duration_from_nanos(nanos: u128) -> Duration {
    u64::try_from(nanos).map_or(Duration::MAX, Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn record_i_is_due_i_over_rate_after_the_start() {
        let schedule = Schedule::Open { records_per_s: 1_000, batch_records: 1 };
        assert_eq!(schedule.due(0), Some(Duration::ZERO));
        assert_eq!(schedule.due(1), Some(Duration::from_millis(1)));
        assert_eq!(schedule.due(86_400_000), Some(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_batch_is_due_with_all_its_records() {
        let schedule = Schedule::Open { records_per_s: 1_000_000, batch_records: 1_000 };
        assert_eq!(schedule.due(3), Some(Duration::from_millis(3)));
        assert_eq!(schedule.batches_before(Duration::from_secs(1)), Some(1_000));
    }

    #[test]
    fn a_closed_loop_promises_nothing() {
        assert_eq!(Schedule::Closed.due(7), None);
        assert_eq!(Schedule::Closed.batches_before(Duration::from_secs(1)), None);
    }

    proptest! {
        #[test]
        fn due_times_never_go_back_and_never_drift(
            records_per_s in 1u64..100_000_000,
            batch_records in 1u64..10_000,
            index in 0u64..1_000_000_000,
        ) {
            let schedule = Schedule::Open { records_per_s, batch_records };
            let due = schedule.due(index).unwrap();
            prop_assert!(due <= schedule.due(index + 1).unwrap());
            let exact = index as f64 * batch_records as f64 / records_per_s as f64;
            prop_assert!((due.as_secs_f64() - exact).abs() <= exact * 1e-9 + 1e-9);
        }

        #[test]
        fn batches_before_agrees_with_due(
            records_per_s in 1u64..10_000_000,
            batch_records in 1u64..10_000,
            end_ns in 1u64..100_000_000_000,
        ) {
            let schedule = Schedule::Open { records_per_s, batch_records };
            let end = Duration::from_nanos(end_ns);
            let count = schedule.batches_before(end).unwrap();
            prop_assert!(count > 0);
            prop_assert!(schedule.due(count - 1).unwrap() < end);
            prop_assert!(schedule.due(count).unwrap() >= end);
        }
    }
}
