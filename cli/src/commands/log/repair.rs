//! `corrente log repair`: makes damaged logs whole from what verifies of them.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use corrente_broker::offline::{self, RepairPlan, RepairStep, Repaired};
use serde::Serialize;

use super::{Offsets, TargetArgs};
use crate::confirm;
use crate::output::Output;

/// Rewrite the damaged segments of logs from what verifies, so that they take records again.
///
/// Records that do not verify are lost for good: readers step over their offsets. The originals are moved into
/// set-aside/ beside the log, never removed. Prints a plan first, and asks.
#[derive(Debug, Args)]
pub struct RepairArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// Only say what would be done.
    #[arg(long)]
    plan: bool,
    /// Do not ask.
    #[arg(long, short, conflicts_with = "plan")]
    yes: bool,
}

/// A plan, or what came of it, as it is printed.
#[derive(Debug, Serialize)]
struct Printed {
    log: String,
    path: String,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    steps: Vec<Step>,
    kept_segments: usize,
    lost: Vec<Offsets>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    set_aside: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Step {
    step: &'static str,
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    offsets: Option<Offsets>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Offsets>,
    /// Whether an original is put aside.
    set_aside: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

pub async fn run(output: Output, args: &RepairArgs) -> Result<ExitCode> {
    let planned = offline::plan_repair(args.target.target()?).await?;
    let (refused, possible): (Vec<_>, Vec<_>) =
        planned.plans().iter().cloned().partition(|plan| plan.refused.is_some());
    let code = if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let plans: Vec<Printed> = planned.plans().iter().map(Printed::new).collect();
    if args.plan {
        print(output, &plans, planned.sound())?;
        return Ok(code);
    }
    eprint!("{}", text(&plans, planned.sound()));
    let mut done = Vec::new();
    if !possible.is_empty() {
        if !args.yes && !std::io::stdin().is_terminal() {
            bail!("nobody is there to be asked: say --yes, or --plan to see only what would be done");
        }
        if confirm::is_due(args.yes) && !confirm::ask("repair?", "nothing was changed")? {
            return Ok(ExitCode::FAILURE);
        }
        let sound = planned.sound();
        let repaired = planned.apply().await?;
        done.extend(possible.iter().zip(repaired).map(|(plan, done)| Printed::new(plan).with(done)));
        print(output, &done, sound)?;
    } else {
        print(output, &done, planned.sound())?;
    }
    Ok(code)
}

fn print(output: Output, printed: &[Printed], sound: usize) -> Result<()> {
    match output {
        Output::Table => print!("{}", text(printed, sound)),
        Output::Json | Output::Jsonl => output.list(&[], printed, |_| Vec::new())?,
    }
    Ok(())
}

fn text(printed: &[Printed], sound: usize) -> String {
    let logs: String = printed.iter().map(|printed| format!("{}\n\n", printed.text())).collect();
    format!("{logs}{sound} logs need no repair\n")
}

impl Printed {
    fn new(plan: &RepairPlan) -> Printed {
        Printed {
            log: plan.id.to_string(),
            path: plan.dir.display().to_string(),
            done: false,
            refused: plan.refused.clone(),
            steps: plan.steps.iter().map(Step::new).collect(),
            kept_segments: plan.kept,
            lost: plan.lost.iter().map(Offsets::from).collect(),
            set_aside: Vec::new(),
        }
    }

    /// What came of it, which is what was found when it was done.
    fn with(self, done: Repaired) -> Printed {
        let lost = done.lost.iter().map(Offsets::from).collect();
        Printed { done: true, lost, set_aside: done.set_aside, ..self }
    }

    fn text(&self) -> String {
        let mut lines = vec![self.path.clone()];
        if self.done {
            lines.push("  repaired".to_owned());
            if !self.set_aside.is_empty() {
                lines.push(format!("  set aside: {}", self.set_aside.join(", ")));
            }
        } else {
            lines.extend(self.refused.iter().map(|why| format!("  cannot be repaired: {why}")));
            lines.extend(self.steps.iter().map(|step| format!("  {}", step.text())));
            lines.push(format!("  {} segments stay as they are", self.kept_segments));
        }
        let lost: u64 = self.lost.iter().map(|lost| lost.count()).sum();
        lines.push(match lost {
            0 => "  no offsets are lost".to_owned(),
            _ => format!("  {lost} offsets are lost for good: {}", ranges(&self.lost)),
        });
        lines.join("\n")
    }
}

impl Step {
    fn new(step: &RepairStep) -> Step {
        let plain = |step, file: &str, set_aside| Step {
            step,
            file: file.to_owned(),
            offsets: None,
            lost: Vec::new(),
            set_aside,
            why: None,
        };
        match step {
            RepairStep::SetAside { file, why } => {
                Step { why: Some(why.clone()), ..plain("set aside", file, true) }
            }
            RepairStep::LogStart { offset } => {
                Step { why: Some(format!("the log starts at {offset}")), ..plain("log start", "start", true) }
            }
            RepairStep::Rewrite { file, offsets, lost, replaces } => Step {
                offsets: Some(offsets.into()),
                lost: lost.iter().map(Offsets::from).collect(),
                ..plain("rewrite", file, *replaces)
            },
            RepairStep::Empty { file, replaces } => plain("make empty", file, *replaces),
        }
    }

    fn text(&self) -> String {
        let Step { step, file, offsets, lost, set_aside, why } = self;
        let mut text = format!("{step} {file}");
        if let Some(offsets) = offsets {
            text.push_str(&format!(", offsets {}", offsets.text()));
        }
        if !lost.is_empty() {
            text.push_str(&format!(", without {}", ranges(lost)));
        }
        if let Some(why) = why {
            text.push_str(&format!(": {why}"));
        }
        if !set_aside {
            text.push_str("; there is no original");
        }
        text
    }
}

fn ranges(lost: &[Offsets]) -> String {
    lost.iter().map(|lost| lost.text()).collect::<Vec<_>>().join(", ")
}
