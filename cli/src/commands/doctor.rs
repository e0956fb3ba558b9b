//! `corrente doctor`: what of this machine hurts a broker, and what to do about it.

mod check;
mod cpu;
mod disk;
mod flush;
mod kernel;
mod limits;
mod machine;
mod memory;
mod mount;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use corrente_broker::trial;

use self::check::{Check, Verdict};
use self::disk::DataDir;
use self::machine::Machine;
use crate::args::Global;
use crate::output::{Output, table};

/// Say what of this machine hurts a broker, and what to do about it.
///
/// Changes nothing. Run it as the user and with the limits of the broker. Exits with 0 if nothing failed, warnings
/// allowed, and with 1 if anything did.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Where the data lies, or will lie; once for each drive.
    #[arg(long = "data-dir", value_name = "DIR", default_value = "./corrente-data")]
    data_dirs: Vec<PathBuf>,
}

pub async fn run(global: &Global, args: DoctorArgs) -> Result<ExitCode> {
    let data_dirs: Vec<DataDir> =
        args.data_dirs.iter().map(|dir| DataDir::find(dir)).collect::<Result<_>>()?;
    let checks = examine(&Machine::this_one(), &data_dirs).await;
    print(global.output, &checks)?;
    let failed = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(machine: &Machine, data_dirs: &[DataDir]) -> Vec<Check> {
    let cpus = cpu::allowed(machine);
    let shards = u16::try_from(cpus.len().max(1)).unwrap_or(u16::MAX);
    let trial = trial::start_shards(shards).await;

    let mut checks = kernel::checks(machine, shards, &trial);
    checks.extend(limits::checks(machine, shards, &trial));
    checks.extend(cpu::checks(machine, &cpus));
    checks.extend(memory::checks(machine));
    checks.extend(data_dirs.iter().flat_map(|dir| disk::checks(machine, dir)));
    checks
}

fn print(output: Output, checks: &[Check]) -> Result<()> {
    match output {
        Output::Table => output.one(&checks, |checks| text(checks))?,
        Output::Json | Output::Jsonl => output.list(&[], checks, |_| Vec::new())?,
    }
    Ok(())
}

fn text(checks: &[Check]) -> String {
    let rows = table(&["CHECK", "VERDICT", "FOUND", "WHAT TO DO"], checks.iter().map(Check::row));
    let count = |verdict| checks.iter().filter(|check| check.verdict == verdict).count();
    let (warned, failed) = (count(Verdict::Warn), count(Verdict::Fail));
    format!("{rows}\n\n{} checks: {} ok, {warned} warn, {failed} fail", checks.len(), count(Verdict::Ok))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_a_line_and_the_last_counts_them() {
        let checks = [
            Check::ok("kernel", "Linux 6.18"),
            Check::warn("swap", "1 MiB used", "swapoff -a").of("/data"),
            Check::fail("direct-io", "refused", "another file system"),
        ];
        let text = text(&checks);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 6, "{text}");
        assert!(lines[2].contains("swap /data") && lines[2].ends_with("swapoff -a"), "{text}");
        assert_eq!(lines[5], "3 checks: 1 ok, 1 warn, 1 fail");
    }
}
