//! Damage of every kind at every kind of place: nothing wrong is served, nothing known to be durable goes without a
//! word. The whole matrix is `scripts/corruption-matrix`; this is a part of each of its rows.

mod matrix;

use std::sync::Arc;

use matrix::cases;
use matrix::damage::Kind;
use matrix::grown::{Files, Grown, Left, grow};
use matrix::judge::Verdict;
use matrix::tally::Tally;
use matrix::trial::try_case;

const SEED: u64 = 1;
/// Cases of each row.
const CASES: usize = 2;

fn try_some(grown: Grown) -> Tally {
    let grown = Arc::new(grown);
    let mut tally = Tally::default();
    for case in cases::some(cases::all(&grown, SEED), CASES, SEED) {
        tally.add(&case, &try_case(&grown, &case));
    }
    println!("{}\n{tally}", grown.name);
    tally
}

fn nothing_is_wrong(tally: &Tally) {
    let wrong: Vec<String> =
        tally.wrong.iter().map(|(number, what)| format!("case {number}: {what}")).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), tally.cases(), wrong.join("\n"));
}

#[test]
fn of_new_files_left_in_good_order() {
    let tally = try_some(grow(SEED, Files::Fresh, Left::Closed));
    nothing_is_wrong(&tally);
    // Everything was in the checkpoint; these may take that away as well.
    let with_checkpoint = tally.count_of(&Verdict::Window, &[Kind::WithoutCheckpoint, Kind::SwapAcross]);
    assert_eq!(tally.count(&Verdict::Window), with_checkpoint, "below the checkpoint there is no window");
}

#[test]
fn of_recycled_files_after_a_power_cut() {
    let tally = try_some(grow(SEED, Files::Recycled, Left::Cut));
    nothing_is_wrong(&tally);
    assert!(
        tally.count(&Verdict::Window) > 0,
        "the newest extents were damaged, and nothing is in the window"
    );
}
