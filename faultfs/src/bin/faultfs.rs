//! The disk as a program of its own: serve an image, change its faults while it is served, cut a recording.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program on the machine's own files, below the file system under test"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use corrente_faultfs::control::{self, Answer, Command};
use corrente_faultfs::cut::{Mode, Replayer};
use corrente_faultfs::device::Device;
use corrente_faultfs::fault::Faults;
use corrente_faultfs::image::Image;
use corrente_faultfs::mount::Mount;
use corrente_faultfs::recording::{Recorder, Recording};

/// A disk for tests, in one file: it records, fails and loses power.
#[derive(Debug, Parser)]
#[command(name = "faultfs", max_term_width = 110)]
enum Cli {
    Serve(Serve),
    /// Send one command, as JSON, to a disk that is served.
    Control {
        /// Its control socket.
        socket: PathBuf,
        /// For example '{"add":{"on":"write","effect":"eio","when":{"nth":3}}}', '"clear"', '"counts"'.
        command: String,
    },
    Cut(Cut),
    /// Say how many events a recording has, and over which time.
    Show {
        /// The directory of the recording.
        recording: PathBuf,
    },
}

/// Serve an image as MOUNTPOINT/disk until that is unmounted.
#[derive(Debug, Args)]
struct Serve {
    /// The image; written in place.
    image: PathBuf,
    /// A directory.
    mountpoint: PathBuf,
    /// Record all that is written into this directory; keep a copy of the image as it was, to cut the recording later.
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Take commands at this Unix socket.
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// Chance of faults and latencies.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Build the image that a power cut could have left.
#[derive(Debug, Args)]
struct Cut {
    /// The directory of the recording.
    recording: PathBuf,
    /// The image as it was when the recording began.
    base: PathBuf,
    /// The image to write.
    out: PathBuf,
    /// Behind how many events; at the end unless told.
    #[arg(long)]
    event: Option<usize>,
    /// What becomes of the writes that no flush covers.
    #[arg(long, default_value_t = Mode::Subset)]
    mode: Mode,
    /// Chance of what is kept and torn.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli::Serve(serve) => serve.run(),
        Cli::Control { socket, command } => send(&socket, &command),
        Cli::Cut(cut) => cut.run(),
        Cli::Show { recording } => show(&recording),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Serve {
    fn run(self) -> Result<()> {
        let image = Image::open(&self.image).with_context(|| format!("opening {}", self.image.display()))?;
        let recorder = self.record.as_deref().map(Recorder::create).transpose().context("recording")?;
        let device = Arc::new(Device::new(image, recorder, Faults::none(self.seed)));
        if let Some(socket) = &self.control {
            control::listen(Arc::clone(&device), socket)
                .with_context(|| format!("listening at {}", socket.display()))?;
        }
        let mount = Mount::new(Arc::clone(&device), &self.mountpoint).context("mounting")?;
        println!("{} serves {} bytes until it is unmounted", mount.disk().display(), device.len());
        mount.wait().context("serving")?;
        let events = device.stop_recording().context("the recording is not whole")?;
        println!("{}", serde_json::to_string(&device.counts())?);
        if let Some(dir) = &self.record {
            println!("{events} events recorded in {}", dir.display());
        }
        Ok(())
    }
}

fn send(socket: &std::path::Path, command: &str) -> Result<()> {
    let command: Command = serde_json::from_str(command).context("no command")?;
    let answer = control::ask(socket, &command).with_context(|| format!("asking {}", socket.display()))?;
    match answer {
        Answer::Done(counts) => println!("{}", serde_json::to_string(&counts)?),
        Answer::Refused(why) => bail!("refused: {why}"),
    }
    Ok(())
}

impl Cut {
    fn run(self) -> Result<()> {
        let recording = Recording::open(&self.recording)
            .with_context(|| format!("opening the recording in {}", self.recording.display()))?;
        let len = recording.events.len();
        let event = self.event.unwrap_or(len);
        ensure!(event <= len, "a cut behind event {event}, the recording has {len}");
        let mut working = self.out.clone().into_os_string();
        working.push(".covered");
        let working = PathBuf::from(working);
        let base = Image::open(&self.base)
            .and_then(|base| base.copy_to(&working))
            .with_context(|| format!("copying {}", self.base.display()))?;
        let mut replayer = Replayer::new(&recording, base);
        replayer.advance(event).context("walking through the recording")?;
        let (_, fates) = replayer.cut(self.mode, self.seed, &self.out).context("writing the image")?;
        std::fs::remove_file(&working)?;
        println!("{}", serde_json::to_string(&fates)?);
        Ok(())
    }
}

fn show(dir: &std::path::Path) -> Result<()> {
    let recording =
        Recording::open(dir).with_context(|| format!("opening the recording in {}", dir.display()))?;
    let [first, .., last] = recording.events.as_slice() else {
        println!("{} events", recording.events.len());
        return Ok(());
    };
    let seconds = (last.at_ns - first.at_ns) as f64 / 1e9;
    println!("{} events over {seconds:.3} s", recording.events.len());
    Ok(())
}
