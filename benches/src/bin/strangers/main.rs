//! Strangers at a broker's door: hostile bytes by the thousand, and crowds that want more than there is room for.
//!
//! Speaks to a broker that somebody else started, over raw loopback sockets, with nothing of the SDK in between. Never
//! starts or ends a process: `scripts/strangers` and `scripts/small-memory` do.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program of its own, outside the seam"
)]

mod attacks;
mod broker_process;
mod bytes_on_the_wire;
mod campaign;
mod crowd;
mod peer;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Behaves badly towards a broker, within bounds, and says how it took it.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Opens hostile connections of every kind in waves; exit code 1 if one is not answered as it should be.
    Attack {
        /// Where the broker listens.
        #[arg(long, value_name = "HOST:PORT")]
        broker: SocketAddr,
        /// The broker's process, for its memory.
        #[arg(long, value_name = "N")]
        pid: u32,
        /// How many connections in all.
        #[arg(long, value_name = "N", default_value_t = 3000)]
        connections: usize,
        /// How many begin at once; the next wave begins while slow ones of this one still go on.
        #[arg(long, value_name = "N", default_value_t = 300)]
        wave: usize,
        /// A topic with plenty of records in partition 0, for those who ask and never listen.
        #[arg(long, value_name = "TOPIC")]
        topic: String,
        /// How much the broker's resident memory may have grown when all of them are gone.
        #[arg(long, value_name = "N", default_value_t = 64)]
        growth_mib_max: u64,
    },
    /// Holds idle connections while others queue produce requests without waiting; all must be acknowledged.
    Crowd {
        /// Where the broker listens.
        #[arg(long, value_name = "HOST:PORT")]
        broker: SocketAddr,
        /// The broker's process, for its memory.
        #[arg(long, value_name = "N")]
        pid: u32,
        /// Connections that say hello and nothing else.
        #[arg(long, value_name = "N", default_value_t = 2000)]
        idle: usize,
        /// Connections that produce.
        #[arg(long, value_name = "N", default_value_t = 128)]
        producers: usize,
        /// Requests of 1 MiB that each producer sends without waiting.
        #[arg(long, value_name = "N", default_value_t = 16)]
        requests: usize,
        /// The topic to produce to.
        #[arg(long, value_name = "TOPIC")]
        topic: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Attack { broker, pid, connections, wave, topic, growth_mib_max } => {
            campaign::run(campaign::Campaign { broker, pid, connections, wave, topic, growth_mib_max }).await
        }
        Command::Crowd { broker, pid, idle, producers, requests, topic } => {
            crowd::run(crowd::Crowd { broker, pid, idle, producers, requests, topic }).await
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
