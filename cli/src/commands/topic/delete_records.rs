//! `corrente topic delete-records`: makes partitions begin later. Says what it will do before it does anything.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use corrente_client::{Admin, DeleteBefore, Error, Offset, OffsetSpec, PartitionOffset};
use futures_util::future::try_join_all;
use serde::Serialize;

use crate::confirm;
use crate::moment;
use crate::output::{Output, table};

/// Delete the oldest records of a topic; asks first on a terminal.
///
/// Prints a plan to stderr first: for each partition from where to where, and how many offsets that is. The plan is
/// what is done, whatever is produced meanwhile.
#[derive(Debug, Args)]
pub struct DeleteRecordsArgs {
    /// The topic.
    name: String,
    /// Only of this partition; may be given several times. Default: all.
    #[arg(long = "partition", value_name = "P")]
    partitions: Vec<u32>,
    /// What is kept begins here: an offset, which counts in each partition; the end; or the first record of a time or
    /// later, as @ and milliseconds since 1970, @2025-11-25T10:00:00Z, or @-15m for a while ago.
    #[arg(long, value_name = "OFFSET|end|@TIME", value_parser = parse_before)]
    before: Before,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Only print the plan.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Offset(Offset),
    End,
    Time(i64),
}

/// One partition of the plan. The end is exclusive; in a compacted topic there may be fewer records than offsets.
#[derive(Debug, Serialize)]
struct Step {
    partition: u32,
    from: u64,
    to: u64,
    records: u64,
    /// Where the partition begins now that it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_start_offset: Option<u64>,
}

pub async fn run(output: Output, admin: &Admin, args: DeleteRecordsArgs) -> Result<ExitCode> {
    let mut steps = plan(admin, &args).await?;
    if args.dry_run {
        output.list(&Step::HEADER, &steps, Step::row)?;
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("delete records of topic {}, for good:", args.name);
    eprintln!("{}", table(&Step::HEADER, steps.iter().map(Step::row)));
    let deletes = steps.iter().any(|step| step.records > 0);
    if deletes && confirm::is_due(args.yes) && !confirm::ask("go ahead?", "nothing was deleted")? {
        return Ok(ExitCode::FAILURE);
    }
    let outcome = carry_out(admin, &args.name, &mut steps).await;
    // Also after a failure: what was done was done.
    output.list(&["PARTITION", "LOG START", "RECORDS"], &steps, Step::done_row)?;
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn plan(admin: &Admin, args: &DeleteRecordsArgs) -> Result<Vec<Step>> {
    let starts = offsets(admin, args, OffsetSpec::Earliest).await?;
    let ends = offsets(admin, args, OffsetSpec::Latest).await?;
    let targets = match args.before {
        Before::Offset(offset) => {
            refuse_beyond(&args.name, &ends, offset)?;
            vec![offset; ends.len()]
        }
        Before::End => ends.iter().map(|end| end.offset).collect(),
        Before::Time(at_ms) => {
            let found = offsets(admin, args, OffsetSpec::Timestamp(at_ms)).await?;
            found.iter().map(|found| found.offset).collect()
        }
    };
    let steps = starts.iter().zip(targets);
    Ok(steps.map(|(start, target)| Step::new(start.partition, start.offset, target)).collect())
}

/// Of the partitions that were named, or of all. One that cannot answer is in nobody's way who did not name it.
async fn offsets(
    admin: &Admin,
    args: &DeleteRecordsArgs,
    spec: OffsetSpec,
) -> Result<Vec<PartitionOffset>, Error> {
    if args.partitions.is_empty() {
        return admin.list_offsets(&args.name, spec).await;
    }
    let named = BTreeSet::from_iter(args.partitions.iter().copied());
    try_join_all(named.into_iter().map(|partition| admin.list_offset(&args.name, partition, spec))).await
}

fn refuse_beyond(topic: &str, ends: &[PartitionOffset], offset: Offset) -> Result<()> {
    match ends.iter().find(|end| end.offset < offset) {
        Some(PartitionOffset { partition, offset: end, .. }) => {
            bail!("offset {offset} is beyond the end of {topic}/{partition}, which is at {end}")
        }
        None => Ok(()),
    }
}

/// One partition after the other, so that a failure leaves the rest alone. Only what the plan says: records that came
/// since are kept.
async fn carry_out(admin: &Admin, topic: &str, steps: &mut [Step]) -> Result<()> {
    let of = steps.len();
    for (done, step) in steps.iter_mut().enumerate() {
        let start = match step.records {
            0 => Offset(step.from),
            _ => {
                let before = DeleteBefore::Offset(Offset(step.to));
                let deleted = admin.delete_records(topic, step.partition, before).await;
                deleted.with_context(|| format!("{done} of {of} partitions are done"))?
            }
        };
        step.log_start_offset = Some(start.0);
    }
    Ok(())
}

impl Step {
    const HEADER: [&str; 4] = ["PARTITION", "FROM", "TO", "RECORDS"];

    /// A partition that begins at or after the target already is left as it is.
    fn new(partition: u32, from: Offset, target: Offset) -> Step {
        let to = target.max(from);
        Step { partition, from: from.0, to: to.0, records: to.0 - from.0, log_start_offset: None }
    }

    fn row(&self) -> Vec<String> {
        [u64::from(self.partition), self.from, self.to, self.records].map(|number| number.to_string()).into()
    }

    fn done_row(&self) -> Vec<String> {
        let (start, records) = match self.log_start_offset {
            Some(start) => (start.to_string(), self.records.to_string()),
            None => ("not done".to_owned(), String::new()),
        };
        vec![self.partition.to_string(), start, records]
    }
}

fn parse_before(text: &str) -> Result<Before, String> {
    if let Some(at_ms) = moment::parse_at(text) {
        return at_ms.map(Before::Time);
    }
    match text {
        "end" => Ok(Before::End),
        offset => offset
            .parse()
            .map(|offset| Before::Offset(Offset(offset)))
            .map_err(|_| "use an offset, end or @TIME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_never_goes_back() {
        let step = Step::new(3, Offset(10), Offset(4));
        assert_eq!((step.from, step.to, step.records), (10, 10, 0));
        let step = Step::new(3, Offset(10), Offset(14));
        assert_eq!((step.from, step.to, step.records), (10, 14, 4));
    }

    #[test]
    fn where_to_end_is_an_offset_the_end_or_a_time() {
        assert_eq!(parse_before("17"), Ok(Before::Offset(Offset(17))));
        assert_eq!(parse_before("end"), Ok(Before::End));
        assert_eq!(parse_before("@17"), Ok(Before::Time(17)));
        for wrong in ["", "-1", "latest", "@", "@tomorrow"] {
            assert!(parse_before(wrong).is_err(), "{wrong}");
        }
    }
}
