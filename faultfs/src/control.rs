//! Faults by remote control: one JSON command a line over a Unix socket, one JSON answer a line.
//!
//! ```text
//! {"add":{"on":"write","effect":"eio","when":{"nth":3},"range":{"start":0,"end":4096}}}
//! {"slow":{"write_us":[100,2000],"flush_us":[1000,5000]}}
//! "clear"
//! "counts"
//! ```

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use serde::{Deserialize, Serialize};

use crate::device::{Counts, Device};
use crate::fault::{Latency, Rule};

/// No command is longer than this, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// What can be asked.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Adds a rule.
    Add(Rule),
    /// Sets how long operations take.
    Slow(Latency),
    /// Takes all rules and latencies back.
    Clear,
    /// Only asks for the counts.
    Counts,
}

/// What is answered.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done; what the disk has done so far.
    Done(Counts),
    /// Not done, and why.
    Refused(String),
}

/// Obeys one command.
pub fn obey(device: &Device, command: Command) -> Answer {
    let outcome = device.with_faults(|faults| match command {
        Command::Add(rule) => faults.add(rule),
        Command::Slow(latency) => faults.slow(latency),
        Command::Clear => {
            faults.clear();
            Ok(())
        }
        Command::Counts => Ok(()),
    });
    match outcome {
        Ok(()) => Answer::Done(device.counts()),
        Err(error) => Answer::Refused(error.to_string()),
    }
}

/// Listens at `socket`, which must not exist yet, for as long as the process lives.
pub fn listen(device: Arc<Device>, socket: &Path) -> io::Result<()> {
    let listener = UnixListener::bind(socket)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let device = Arc::clone(&device);
            thread::spawn(move || serve(&device, &stream));
        }
    });
    Ok(())
}

fn serve(device: &Device, stream: &UnixStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if lines.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match serde_json::from_str(&line) {
            Ok(command) => obey(device, command),
            Err(error) => Answer::Refused(format!("no command: {error}")),
        };
        let mut stream = stream;
        writeln!(stream, "{}", serde_json::to_string(&answer)?)?;
    }
}

/// Sends one command to whoever listens at `socket`.
pub fn ask(socket: &Path, command: &Command) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{}", serde_json::to_string(command)?)?;
    let mut line = String::new();
    BufReader::new(stream).take(LINE_MAX).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Faults;
    use crate::image::Image;
    use rustix::io::Errno;

    #[test]
    fn commands_travel_and_take_effect() {
        let dir = tempfile::tempdir().unwrap();
        let image = Image::create(&dir.path().join("image"), 1 << 20).unwrap();
        let device = Arc::new(Device::new(image, None, Faults::none(0)));
        let socket = dir.path().join("control");
        listen(Arc::clone(&device), &socket).unwrap();

        let rule = "{\"add\":{\"on\":\"flush\",\"effect\":\"eio\",\"when\":{\"nth\":1}}}";
        let done = ask(&socket, &serde_json::from_str(rule).unwrap()).unwrap();
        assert_eq!(done, Answer::Done(Counts::default()));
        assert_eq!(device.flush(device.receive_flush()), Err(Errno::IO));
        let counts = ask(&socket, &Command::Counts).unwrap();
        assert_eq!(counts, Answer::Done(Counts { flushes: 1, faults: 1, ..Counts::default() }));

        let senseless = rule.replace("eio", "enospc");
        let refused = ask(&socket, &serde_json::from_str(&senseless).unwrap()).unwrap();
        assert_eq!(refused, Answer::Refused("Enospc does not happen to a Flush".into()));

        let stream = UnixStream::connect(&socket).unwrap();
        writeln!(&stream, "nonsense").unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert!(line.contains("no command"), "{line}");
    }
}
