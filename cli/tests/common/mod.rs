//! The real binary, as a user runs it: brokers on a free port with data on a real disk, and commands against them.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "each story uses its part of these helpers, and stories run real processes"
)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a story gives up; far beyond what is expected.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A directory below `target/`, so on a real disk, that goes away with the story.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The binary, with the environment's own settings kept out.
pub fn corrente<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corrente"));
    command.args(arguments).env_remove("CORRENTE_BROKERS").env_remove("CORRENTE_LOG");
    command
}

/// A broker that ends with its owner.
pub struct Broker {
    child: Child,
    pub address: String,
    /// The listener for Kafka's clients, if it was asked for one.
    pub kafka: Option<String>,
    pub ready_file: PathBuf,
}

impl Broker {
    /// Starts a broker on `home` at any free port, with one shard.
    pub fn start(home: &Path) -> Broker {
        Broker::start_with(home, &["--listen", "127.0.0.1:0", "--shards", "1"])
    }

    /// Starts it again where it was.
    pub fn restart(home: &Path, address: &str) -> Broker {
        Broker::start_with(home, &["--listen", address, "--shards", "1"])
    }

    /// Starts a broker with its data and ready file in `home`, and waits until it serves.
    pub fn start_with(home: &Path, flags: &[&str]) -> Broker {
        let ready_file = home.join("ready.json");
        let child = corrente(["serve", "--placement", "unbound", "--log", "warn"])
            .arg("--data-dir")
            .arg(home.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .args(flags)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut broker = Broker { child, address: String::new(), kafka: None, ready_file };
        // A file of an earlier start is gone before the new one is written, and names another process until then.
        let pid = u64::from(broker.child.id());
        let ready = wait_for("the ready file", || {
            if let Some(status) = broker.child.try_wait().unwrap() {
                panic!("the broker ended with {status} instead of serving");
            }
            let text = std::fs::read(&broker.ready_file).ok()?;
            let ready: serde_json::Value =
                serde_json::from_slice(&text).expect("a ready file is written whole");
            (ready["pid"] == pid).then_some(ready)
        });
        broker.address = ready["native"].as_str().unwrap().to_owned();
        broker.kafka = ready["kafka"].as_str().map(str::to_owned);
        broker
    }

    /// A command against this broker.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = corrente(arguments);
        command.env("CORRENTE_BROKERS", &self.address);
        command
    }

    /// A command that has to succeed; its stdout.
    pub fn output<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
        succeed(&mut self.run(arguments)).stdout
    }

    /// Produces `input` from stdin; has to succeed.
    pub fn produce<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Output {
        let output = feed(self.run(["produce"]).args(arguments), input);
        assert!(output.status.success(), "produce: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// No time for last words.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits.
    pub fn terminate(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for("the broker to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until there is something, or panics when patience is over.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command that has to succeed.
pub fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {stderr}", output.status);
    output
}

/// Runs a command that has to fail with exit code 1 and exactly one line `error: …`; the line.
pub fn refused(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    the_error(command, &output)
}

/// The one line of a command that failed.
pub fn the_error(command: &Command, output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{command:?}: {stderr}");
    errors[0].to_owned()
}

/// Runs a command with this on its stdin.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // A command that stops early closes the pipe; what it says about that is what matters.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().unwrap()
    })
}

/// Lines without their ends.
pub fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n').collect()
}

/// The directory of a partition, wherever below the data directory it lies.
pub fn partition_dir(home: &Path, topic: &str, partition: &str) -> PathBuf {
    let mut unseen = vec![home.join("data")];
    while let Some(directory) = unseen.pop() {
        if directory.ends_with(Path::new(topic).join(partition)) {
            return directory;
        }
        let entries = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
        unseen.extend(entries.filter(|path| path.is_dir()));
    }
    panic!("no directory of {topic}/{partition} below {}", home.display());
}

/// The segment files in a partition's directory, in order.
pub fn segments(directory: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect();
    segments.sort();
    segments
}
