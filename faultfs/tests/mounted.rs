//! A mounted disk through the kernel: what programs write is recorded, what they flush survives a cut, and faults reach
//! them. Skipped, and said so, where nothing may be mounted.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a test is a program of its own")]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use corrente_faultfs::cut::{Mode, Replayer};
use corrente_faultfs::device::Device;
use corrente_faultfs::fault::{Effect, Faults, Operation, Rule, When};
use corrente_faultfs::image::Image;
use corrente_faultfs::mount::Mount;
use corrente_faultfs::recording::{Recorder, Recording};
use rustix::process::geteuid;

const LEN: u64 = 8 << 20;

fn may_mount() -> bool {
    let may = geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !may {
        println!("skipped: mounting takes root and /dev/fuse");
    }
    may
}

#[test]
fn a_flushed_write_survives_and_an_unflushed_one_need_not() {
    if !may_mount() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (at, recorded) = (dir.path().join("mount"), dir.path().join("recording"));
    std::fs::create_dir(&at).unwrap();
    let image = Image::create(&dir.path().join("image"), LEN).unwrap();
    let device = Arc::new(Device::new(image, Some(Recorder::create(&recorded).unwrap()), Faults::none(1)));
    let mount = Mount::new(Arc::clone(&device), &at).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.disk()).unwrap();
    assert_eq!(file.metadata().unwrap().len(), LEN);

    // Larger than one request of the kernel's.
    let large = vec![0xa5; 3 << 20];
    file.write_all_at(&large, 1 << 20).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"unflushed", 0).unwrap();
    let mut back = [0; 9];
    file.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(&back, b"unflushed");

    let failing = Rule { on: Operation::Flush, effect: Effect::Eio, when: When::Nth(1), range: None };
    device.with_faults(|faults| faults.add(failing)).unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    drop(file);
    let events = device.stop_recording().unwrap();
    mount.unmount().unwrap();

    let recording = Recording::open(&recorded).unwrap();
    assert_eq!(recording.events.len() as u64, events);
    let base = Image::create(&dir.path().join("base"), LEN).unwrap();
    let mut replayer = Replayer::new(&recording, base);
    replayer.advance(recording.events.len()).unwrap();
    for (mode, head) in [(Mode::AllLost, [0; 9]), (Mode::AllKept, *b"unflushed")] {
        let (cut, fates) = replayer.cut(mode, 0, &dir.path().join("cut")).unwrap();
        assert_eq!(fates.pending, 1);
        let mut found = [1; 9];
        cut.read_at(&mut found, 0).unwrap();
        assert_eq!(found, head, "{mode}");
        let mut found = vec![0; large.len()];
        cut.read_at(&mut found, 1 << 20).unwrap();
        assert!(found == large, "{mode}: what was flushed is not there");
    }
}
