//! The broker as a process on this machine: whose listener it is, its CPU seconds and its memory, from `/proc`.
//!
//! Everything here is an extra: where the broker runs elsewhere, or `/proc` may not be read, the answer is `None`.

use std::fs;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};

/// A process that is measured from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerProcess {
    pid: u32,
}

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// CPU seconds of all threads since the process began, user and system.
    pub cpu_s: f64,
    /// Resident memory now, in bytes.
    pub rss_bytes: u64,
    /// The most resident memory since the process began, in bytes.
    pub rss_peak_bytes: u64,
}

impl BrokerProcess {
    /// The process with this id, if there is one.
    pub fn with_pid(pid: u32) -> Option<BrokerProcess> {
        let process = BrokerProcess { pid };
        process.usage().map(|_| process)
    }

    /// The process of this machine that listens at the first of `brokers` (`HOST:PORT`) that is an address of ours.
    pub fn listening_at(brokers: &[String]) -> Option<BrokerProcess> {
        brokers
            .iter()
            .filter_map(|broker| broker.to_socket_addrs().ok())
            .flatten()
            .filter(is_ours)
            .find_map(|address| listener_inode(address).and_then(socket_owner))
            .map(|pid| BrokerProcess { pid })
    }

    /// This generator itself.
    pub fn this_one() -> BrokerProcess {
        BrokerProcess { pid: std::process::id() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The words it was started with.
    pub fn command_line(&self) -> Vec<String> {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = words.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    }

    /// The files and directories it holds open, but for devices.
    pub fn open_files(&self) -> Vec<PathBuf> {
        let Ok(descriptors) = fs::read_dir(format!("/proc/{}/fd", self.pid)) else { return Vec::new() };
        let paths = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        paths.filter(|path| path.is_absolute() && !path.starts_with("/dev")).collect()
    }

    /// What it has used so far; `None` once it is gone.
    pub fn usage(&self) -> Option<Usage> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        Some(Usage {
            cpu_s: cpu_ticks(&stat)? as f64 / rustix::param::clock_ticks_per_second() as f64,
            rss_bytes: status_kib(&status, "VmRSS:")? * 1024,
            rss_peak_bytes: status_kib(&status, "VmHWM:")? * 1024,
        })
    }
}

/// CPU seconds, user and system, of those threads of this process whose names begin so.
pub fn cpu_s_of_threads(named: &str) -> Option<f64> {
    let tasks = fs::read_dir("/proc/self/task").ok()?.flatten();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.path().join("stat")).ok());
    let ticks: u64 =
        stats.filter(|stat| command_name(stat).starts_with(named)).filter_map(|stat| cpu_ticks(&stat)).sum();
    Some(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// An address is ours when a socket may be bound to it.
fn is_ours(address: &SocketAddr) -> bool {
    UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// The inode of the socket that listens at the port of `address`.
fn listener_inode(address: SocketAddr) -> Option<u64> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .find_map(|table| listener_inode_in(&table, address.port()))
}

fn listener_inode_in(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, hex_port) = fields.get(1)?.rsplit_once(':')?;
        let ours = u16::from_str_radix(hex_port, 16) == Ok(port) && *fields.get(3)? == LISTEN;
        if ours { fields.get(9)?.parse().ok() } else { None }
    })
}

fn socket_owner(inode: u64) -> Option<u32> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut fds = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == Path::new(&wanted))).then_some(pid)
    })
}

/// The second field, in parentheses; may hold parentheses itself.
fn command_name(stat: &str) -> &str {
    let name = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    name.map_or("", |(name, _)| name)
}

/// User and system ticks: the 14th and 15th field. The command name before them may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_command) = stat.rsplit_once(')')?;
    let mut fields = after_command.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn status_kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn finds_the_process_behind_a_port() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let found = BrokerProcess::listening_at(&[address]).unwrap();
        assert_eq!(found.pid(), std::process::id());
        let usage = found.usage().unwrap();
        assert!(usage.rss_bytes > 0 && usage.rss_peak_bytes > 0);
        assert_eq!(found.command_line(), std::env::args().collect::<Vec<_>>());
        let file = std::env::current_exe().unwrap();
        let _held = fs::File::open(&file).unwrap();
        assert!(found.open_files().contains(&file));
    }

    #[test]
    fn knows_nothing_of_processes_elsewhere() {
        // TEST-NET-1 is nobody's address.
        assert_eq!(BrokerProcess::listening_at(&["192.0.2.1:7400".to_owned()]), None);
        assert_eq!(BrokerProcess::with_pid(u32::MAX), None);
    }

    #[test]
    fn threads_are_told_apart_by_name() {
        let busy = || {
            let began = std::time::Instant::now();
            let used = || cpu_s_of_threads("busy-").unwrap();
            while used() < 0.05 && began.elapsed().as_secs() < 60 {}
            (used(), cpu_s_of_threads("idle-").unwrap())
        };
        let (used, idle) =
            std::thread::Builder::new().name("busy-1".to_owned()).spawn(busy).unwrap().join().unwrap();
        assert!(used >= 0.05 && idle == 0.0, "{used} {idle}");
    }

    #[test]
    fn a_command_name_may_hold_anything() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!((command_name(stat), cpu_ticks(stat)), ("a) b (c", Some(300)));
        assert_eq!(cpu_ticks("7 (a) S 1"), None);
        assert_eq!(status_kib("Name:\tx\nVmRSS:\t   12 kB\n", "VmRSS:"), Some(12));
    }
}
