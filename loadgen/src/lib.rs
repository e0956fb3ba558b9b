//! The load generator: open-loop schedules, latency from the intended send time.
