//! How long durable writes of one file take on this disk, by size and by how its space was made ready.
//!
//! `cargo run --release -p corrente-storage --example measure_windows -- DIR`

use std::path::{Path, PathBuf};
use std::time::Duration;

use corrente_runtime::buffer::AlignedBuf;
use corrente_runtime::executor::{Executors, ExecutorsConfig, Placement};
use corrente_runtime::file::{self, File, OpenOptions, Sync};
use corrente_runtime::timer;

const STEP: u64 = 64 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
enum Ready {
    Growing,
    Allocated,
    Filled,
}

async fn measure(dir: &Path, ready: Ready, len: usize, writes: u64, flush_apart: bool) {
    let path = dir.join("measured");
    let file =
        File::open(&path, OpenOptions { create: true, ..OpenOptions::READ_WRITE }).await.expect("open");
    file.set_len(0).await.expect("set_len");
    let step = len as u64;
    if let Ready::Filled = ready {
        let zeros = AlignedBuf::zeroed(1024 * 1024).freeze();
        for at in (0..(writes * step).next_multiple_of(1 << 20)).step_by(1 << 20) {
            file.write_at(zeros.clone(), at, Sync::No).await.expect("filled");
        }
        file.sync_data().await.expect("flushed");
    }
    let mut data = AlignedBuf::zeroed(len);
    data.fill(0x5A);
    let data = data.freeze();
    let mut times = Vec::new();
    let begin = timer::now();
    let mut allocated = 0;
    for n in 0..writes {
        let at = n * step;
        let start = timer::now();
        if matches!(ready, Ready::Allocated) && at + step > allocated {
            file.allocate(allocated, STEP).await.expect("allocated");
            allocated += STEP;
        }
        if flush_apart {
            file.write_at(data.clone(), at, Sync::No).await.expect("written");
            file.sync_data().await.expect("flushed");
        } else {
            file.write_at(data.clone(), at, Sync::Data).await.expect("written");
        }
        times.push(timer::now() - start);
    }
    let total = begin.elapsed();
    times.sort_unstable();
    let at = |q: usize| times[(times.len() * q / 1000).min(times.len() - 1)];
    let rate = (writes * step) as f64 / total.as_secs_f64() / 1e6;
    let how = if flush_apart { "write + flush" } else { "RWF_DSYNC" };
    println!(
        "{:>7} B {ready:<9?} {how:<13} p50 {:>8.1?} p99 {:>8.1?} p99.9 {:>8.1?} {rate:>7.0} MB/s",
        len,
        at(500),
        at(990),
        at(999),
    );
    file.close().await.expect("closed");
    file::remove_file(&path).await.expect("removed");
    timer::sleep(Duration::from_millis(300)).await;
}

async fn run(dir: PathBuf) {
    file::create_dir_all(&dir).await.expect("the directory is made");
    for (len, writes) in [(4096, 4000), (65_536, 4000), (262_144, 2000), (1_048_576, 1000)] {
        for ready in [Ready::Growing, Ready::Allocated, Ready::Filled] {
            measure(&dir, ready, len, writes, false).await;
        }
        measure(&dir, Ready::Allocated, len, writes, true).await;
    }
}

fn main() {
    let dir: PathBuf = std::env::args().nth(1).expect("a directory on the disk to be measured").into();
    let mut config = ExecutorsConfig::new(1);
    config.placement = Placement::Unbound;
    let (done, wait) = std::sync::mpsc::channel();
    let main = move |_| {
        let (dir, done) = (dir.clone(), done.clone());
        async move {
            run(dir).await;
            done.send(()).expect("main waits");
        }
    };
    let executors = Executors::start(config, main).expect("started");
    wait.recv().expect("the shard came to its end");
    drop(executors);
}
