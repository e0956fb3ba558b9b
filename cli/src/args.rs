//! The command line as a whole; each command's own arguments stand beside the command.

use clap::{Args, Parser, Subcommand};

use crate::commands::{bench, completions, consume, doctor, log, produce, serve, top, topic};
use crate::output::Output;

/// Corrente: a durable event streaming platform.
#[derive(Debug, Parser)]
#[command(name = "corrente", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command understands, before or after its name.
#[derive(Debug, Args)]
pub struct Global {
    /// How results are printed.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Brokers to begin with; any one that answers is enough. Default: 127.0.0.1:7400
    #[arg(
        long,
        global = true,
        env = "CORRENTE_BROKERS",
        value_name = "HOST:PORT,...",
        value_delimiter = ','
    )]
    pub brokers: Vec<String>,
}

impl Global {
    /// Those given, or the one that a broker on this machine is by default.
    pub fn brokers_or_default(&self) -> Vec<String> {
        match &self.brokers[..] {
            [] => vec!["127.0.0.1:7400".to_owned()],
            given => given.to_vec(),
        }
    }
}

/// A command without a line here describes itself beside its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    Serve(serve::ServeArgs),
    /// Create, list, describe, change and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    Produce(produce::ProduceArgs),
    Consume(consume::ConsumeArgs),
    /// Verify, show and repair the files of a broker that does not run.
    #[command(subcommand)]
    Log(log::LogCommand),
    Top(top::TopArgs),
    Doctor(doctor::DoctorArgs),
    /// Measure a broker.
    #[command(subcommand)]
    Bench(Box<bench::BenchCommand>),
    Completions(completions::CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn globals_go_before_and_after_the_subcommand() {
        for line in [
            "corrente -o json --brokers a:1,b:2 topic list",
            "corrente topic -o json list --brokers a:1,b:2",
            "corrente topic list --brokers a:1,b:2 -o json",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.global.output, Output::Json, "{line}");
            assert_eq!(cli.global.brokers, ["a:1", "b:2"], "{line}");
        }
    }

    #[test]
    fn the_spellings_scripts_rely_on_are_understood() {
        for line in [
            "corrente serve",
            "corrente serve --config f --data-dir a --data-dir b --listen 127.0.0.1:0 --advertise h:1 --shards 2 \
             --cpus 0-1 --placement unbound --ready-file r",
            "corrente topic create t --partitions 8 --config retention.ms=5 --config a=b",
            "corrente topic list",
            "corrente topic describe t",
            "corrente topic delete t",
            "corrente topic alter t --config a=b --unset c",
            "corrente topic add-partitions t --partitions 9",
            "corrente produce t --file f --key-delimiter : --header a=b --header c=d --partition 3 \
             --durability received",
            "corrente produce t --format json",
            "corrente consume t --from earliest --until-end --partition 0 --format %k",
            "corrente consume t --from 17 --format json",
            "corrente consume t --from @1764064800000",
            "corrente consume t --from @2025-11-25T10:00:00Z --until-end",
            "corrente consume t --from @-15m",
            "corrente topic offsets t",
            "corrente topic offsets t --at @-1h -o json",
            "corrente topic offsets t --at max-timestamp",
            "corrente topic delete-records t --before end --yes",
            "corrente topic delete-records t --partition 0 --partition 2 --before 17 --dry-run",
            "corrente topic delete-records t --before @2025-11-25T10:00:00+01:00 -y -o jsonl",
            "corrente bench produce --records 10 --record-size 256 --batch-records 1 --rate 100 --topic t \
             --partitions 1 --cpus 1 --json f",
            "corrente bench produce --duration 5s --closed-loop",
            "corrente bench consume --records 10 --topic t --json f",
            "corrente bench produce --rate 1k..50k --arrivals poisson --duration 5s --slip-max 10% --hdr f",
            "corrente bench produce --arrivals burst:10 --json f --append",
            "corrente bench produce --keys 1M --key-size 16 --key-skew zipf:0.99 --compressible 60% --compression lz4",
            "corrente bench consume --from latest --duration 5s",
            "corrente bench e2e --protocol kafka --brokers 127.0.0.1:9092",
            "corrente bench compare a.json b.json --fail-if p99>+5% --fail-if records/s<-3%",
            "corrente bench max --slo p99=2ms --slo p99.9=10ms --precision 10% produce --rate 1000 --record-size 256",
            "corrente bench max --slo p50=300us e2e",
            "corrente bench matrix f.toml --json f",
            "corrente bench e2e --duration 5s --rate 1000 --record-size 100 --batch-records 10 --partitions 2 \
             --consumers 3 --cpus 0",
            "corrente bench consume --html f",
            "corrente bench e2e --json f --append --html f",
            "corrente bench report f --html g",
            "corrente bench profile t --records 1M --json f",
            "corrente log verify d",
            "corrente log verify d e/topics/x/0 --first-data-dir d -o jsonl",
            "corrente log dump d --segment 17 --from 20 --max 5 --records -o json",
            "corrente log repair d --plan",
            "corrente log repair d --yes",
            "corrente top",
            "corrente top --control 127.0.0.1:9400 --interval 500ms --once -o json",
            "corrente doctor",
            "corrente doctor --data-dir a --data-dir b -o jsonl",
            "corrente completions bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for line in [
            "corrente",
            "corrente topic create t",
            "corrente bench produce --records 1 --duration 1s",
            "corrente bench produce --rate 1 --closed-loop",
            "corrente bench produce --arrivals sometimes",
            "corrente bench produce --append",
            "corrente bench produce --key-skew zipf:1",
            "corrente bench produce --compression lzma",
            "corrente bench compare a.json",
            "corrente bench max produce",
            "corrente bench max --slo records/s=2ms produce",
            "corrente bench compare a.json b.json --fail-if p99",
            "corrente bench consume --rate 1",
            "corrente bench report f",
            "corrente bench profile",
            "corrente bench profile t --records 0",
            "corrente bench produce --replay missing",
            "corrente bench report --html f",
            "corrente produce t --durability maybe",
            "corrente produce t --header novalue",
            "corrente consume t --from yesterday",
            "corrente consume t --from @yesterday",
            "corrente consume t --from @-15",
            "corrente topic offsets t --at 17",
            "corrente topic delete-records t",
            "corrente topic delete-records t --before latest",
            "corrente consume t --format %q",
            "corrente serve --placement glued",
            "corrente top --interval soon",
            "corrente log verify",
            "corrente log repair d --plan --yes",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
