//! One case: a damaged directory on the disk of a new world, two lives of a broker on it, and the verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use corrente_protocol::compression::Compression;
use corrente_protocol::ids::{LeaderEpoch, Offset};
use corrente_protocol::record_batch::RecordBatchBuilder;
use corrente_storage::LogId;

use super::cases::Case;
use super::common::append_bytes;
use super::damage::Kind;
use super::grown::{Grown, Known, forgetful_world, main_log, run};
use super::image::Image;
use super::judge::{Judged, Touched, Verdict, judge};
use super::look::{Directory, LogSeen, Questions, Record, Records, Seen};

/// The epoch of what is appended after the damage.
const EPOCH: LeaderEpoch = LeaderEpoch(3);

/// Tries a case; a panic is a verdict too.
pub fn try_case(grown: &Arc<Grown>, case: &Case) -> Judged {
    let tried = catch_unwind(AssertUnwindSafe(|| try_for_real(grown, case)));
    tried.unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().map(String::as_str);
        let what = what.or(panic.downcast_ref::<&str>().copied()).unwrap_or("something that is no text");
        Judged { verdict: Verdict::Wrong(format!("panicked: {what}")), hidden: 0, told: Vec::new() }
    })
}

fn try_for_real(grown: &Arc<Grown>, case: &Case) -> Judged {
    let damaged = Arc::new(case.damage.apply(&grown.image));
    let touched = Touched::between(grown, &damaged);
    let mut known = grown.logs.clone();
    let mut rng = fastrand::Rng::with_seed(case.number);
    let questions = Arc::new(grown.questions(&mut rng));
    let closes = rng.bool();
    let (world, node) = forgetful_world(case.number);
    let life = Life { questions: questions.clone(), closes };
    let (seen, appended) = match case.kind {
        Kind::WhileRunning => {
            let sound = grown.image.clone();
            run(&world, &node, move || life.with_damage_in_it(sound, damaged))
        }
        _ => run(&world, &node, move || life.on(damaged)),
    };
    let first = judge(known.iter().map(|(id, known)| (*id, known)), &seen, &touched);
    if first.is_wrong() {
        return first;
    }
    // A process that ends in good order still ends: an index that was being rebuilt is not written on.
    if closes {
        node.kill()
    } else {
        node.crash()
    }
    extend(&mut known, &seen, appended);
    let life = Life { questions, closes: true };
    let (seen, _) = run(&world, &node, move || life.again());
    first.and(judge(known.iter().map(|(id, known)| (*id, known)), &seen, &touched))
}

/// What is known after the first life: a log in the window ends where it was found to end, and more was appended.
fn extend(known: &mut BTreeMap<LogId, Known>, seen: &Seen, appended: Records) {
    let Seen::Started(logs) = seen else { return };
    for (id, known) in known.iter_mut() {
        let Some(LogSeen::Opened(opened)) = logs.get(id) else { continue };
        if opened.quarantined.is_none() && opened.end < known.end {
            known.end = opened.end;
            known.records.retain(|offset, _| *offset < opened.end);
            known.extents.retain(|extent| extent.offsets.end <= opened.end);
        }
    }
    if let Some((last, _)) = appended.last_key_value() {
        let main = known.get_mut(&main_log()).expect("it is known");
        main.end = last + 1;
        main.records.extend(appended);
    }
}

/// One life of a broker on the directory.
struct Life {
    questions: Arc<BTreeMap<LogId, Questions>>,
    /// In good order at its end; else the power fails.
    closes: bool,
}

impl Life {
    async fn on(self, image: Arc<Image>) -> (Seen, Records) {
        image.put().await;
        self.again().await
    }

    async fn again(self) -> (Seen, Records) {
        let directory = match Directory::open().await {
            Ok(directory) => directory,
            Err(reason) => return (Seen::Refused(reason), Records::new()),
        };
        let seen = directory.see(&self.questions).await;
        self.go_on(directory, seen).await
    }

    async fn with_damage_in_it(self, sound: Arc<Image>, damaged: Arc<Image>) -> (Seen, Records) {
        sound.put().await;
        let directory = Directory::open().await.expect("a sound directory opens");
        directory.see(&self.questions).await;
        // A start has removed the checkpoint files of the one before.
        let mut there = Image::take().await;
        there.files.retain(|path, content| sound.files.get(path) == Some(content));
        there.rot_into(&damaged).await;
        let seen = directory.see(&self.questions).await;
        self.go_on(directory, seen).await
    }

    /// Appends, if the log takes it; says what.
    async fn go_on(self, directory: Directory, seen: Seen) -> (Seen, Records) {
        let mut appended = Records::new();
        if let Some(log) = directory.sound_log(main_log()) {
            for number in 0..2_u8 {
                let key = Bytes::from(format!("after {number}"));
                let record = Record {
                    timestamp_ms: i64::MAX / 2,
                    key: Some(key),
                    value: Some(Bytes::from(vec![number; 700])),
                };
                let mut builder = RecordBatchBuilder::new(Compression::None);
                builder
                    .push(record.timestamp_ms, record.key.as_deref(), record.value.as_deref(), &[])
                    .expect("small");
                let placed =
                    append_bytes(log, EPOCH, &builder.build()).await.expect("a sound log takes records");
                log.flushed_past(Offset(placed.end_offset.0 - 1)).await.expect("flushed");
                appended.insert(placed.base_offset.0, record);
            }
        }
        if self.closes {
            directory.close().await;
        }
        (seen, appended)
    }
}
