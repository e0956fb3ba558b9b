//! Too little memory to lock is told before anything starts. Alone in its file: it lowers a limit of the whole
//! process.

mod shards;

use corrente_runtime::executor::{Executors, StartError};
use rustix::process::{Resource, Rlimit, setrlimit};
use shards::config;

#[test]
fn a_low_limit_is_named_with_what_is_needed() {
    let limit = Rlimit { current: Some(64 << 10), maximum: Some(64 << 10) };
    setrlimit(Resource::Memlock, limit).expect("a limit may always be lowered");
    let refused = Executors::start(config(2), |_| async {}).err().expect("refused");
    assert!(matches!(refused, StartError::MemlockTooLow { limit_kib: 64, needed_kib: 896, shards: 2 }));
    assert_eq!(
        refused.to_string(),
        "the memlock limit of 64 KiB is too low for 2 shards, which need about 896 KiB: \
         raise it with `ulimit -l` or LimitMEMLOCK="
    );
}
