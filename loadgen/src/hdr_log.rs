//! The seconds of a run as an HDR interval log, which other tools of that family read and draw.
//!
//! The format is that of [HdrHistogram](https://github.com/HdrHistogram/HdrHistogram)'s `HistogramLogWriter`, version 1.3,
//! with histograms in the compressed V2 encoding. Latencies are in nanoseconds, one value a record.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::timeline::Seconds;

/// Writes every second in which something was recorded; `began` is the end of the warm-up.
pub fn write(out: &mut impl Write, began: SystemTime, seconds: &Seconds) -> Result<()> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("latency in nanoseconds from the intended send time, by corrente bench")
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(out, &mut serializer)?;
    for second in seconds.iter() {
        log.write_histogram(&second.latency_ns, second.begin(), Duration::from_secs(1), None)
            .map_err(|error| anyhow!(io::Error::other(format!("{error:?}"))))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::Recorder;
    use crate::timeline::Timeline;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use std::io::Cursor;

    #[test]
    fn other_tools_read_what_was_recorded() {
        let (timeline, keeper) = Timeline::start(&Default::default()).unwrap();
        let mut recorder = Recorder::with_timeline(Duration::ZERO, &timeline);
        for second in 0..3 {
            let due = Duration::from_secs(second);
            recorder.arrived(due, due + Duration::from_micros(250), 7, 70);
        }
        drop((recorder, timeline));
        let mut log = Vec::new();
        write(&mut log, SystemTime::now(), &keeper.finish().unwrap()).unwrap();

        let entries = IntervalLogIterator::new(&log).filter_map(|entry| match entry.unwrap() {
            LogEntry::Interval(interval) => Some(interval),
            _ => None,
        });
        let read: Vec<(Duration, u64)> = entries
            .map(|interval| {
                let bytes = base64_decode(interval.encoded_histogram());
                let histogram: Histogram<u64> =
                    Deserializer::new().deserialize(&mut Cursor::new(bytes)).unwrap();
                assert!(histogram.equivalent(histogram.max(), 250_000));
                (interval.start_timestamp(), histogram.len())
            })
            .collect();
        assert_eq!(read, [0, 1, 2].map(|second| (Duration::from_secs(second), 7)));
    }

    fn base64_decode(text: &str) -> Vec<u8> {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.decode(text).unwrap()
    }
}
