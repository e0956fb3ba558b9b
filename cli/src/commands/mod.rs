//! One file a command. A command parses nothing but its own arguments and talks to nothing but a room of the house.

pub mod bench;
pub mod completions;
pub mod consume;
pub mod doctor;
pub mod log;
pub mod produce;
pub mod serve;
pub mod top;
pub mod topic;

use std::process::ExitCode;

use anyhow::{Context, Result};
use corrente_client::Client;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Cli, Command, Global};

/// Runs the command that was asked for.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => serve::run(&global, args),
        Command::Topic(command) => with_runtime(topic::run(&global, command)),
        Command::Produce(args) => with_runtime(produce::run(&global, args)),
        Command::Consume(args) => with_runtime(consume::run(&global, args)),
        Command::Log(command) => with_runtime(log::run(&global, command)),
        Command::Top(args) => with_runtime(top::run(&global, args)),
        Command::Doctor(args) => with_runtime(doctor::run(&global, args)),
        Command::Bench(command) => bench::run(&global, *command),
        Command::Completions(args) => completions::run(&args),
    }
}

/// A runtime of its own for a command that uses the SDK. Threads that still wait for input do not hold up the end.
fn with_runtime(command: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}

/// A client of the brokers that were named.
async fn connect(global: &Global) -> Result<Client> {
    Ok(Client::builder(global.brokers_or_default()).client_id("corrente-cli").connect().await?)
}

/// Waits for SIGINT or SIGTERM: a person at the terminal, or whoever runs us in the background.
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt,
        _ = terminate.recv() => Ok(()),
    }
}
