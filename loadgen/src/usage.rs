//! Reads what broker and generator use, before and after the measured part.
//!
//! A broker in the generator's own process used what the generator's threads did not; their memory is one.

use std::collections::BTreeSet;

use crate::THREADS;
use crate::broker_process::{BrokerProcess, Usage, cpu_s_of_threads};
use crate::machine::file_system_of;
use crate::plan::Plan;
use crate::report::{BrokerUsage, Usages};

/// Two processes and their readings.
#[derive(Debug)]
pub struct Meter {
    broker: Option<BrokerProcess>,
    before: (Option<Usage>, Option<Usage>),
    after: (Option<Usage>, Option<Usage>),
}

impl Meter {
    /// Looks for the broker's process on this machine.
    pub fn new(plan: &Plan) -> Meter {
        let broker = match plan.broker_pid {
            Some(pid) => BrokerProcess::with_pid(pid),
            None => BrokerProcess::listening_at(&plan.brokers),
        };
        Meter { broker, before: (None, None), after: (None, None) }
    }

    /// The measured part begins.
    pub fn begin(&mut self) {
        self.before = self.read();
    }

    /// The measured part is over.
    pub fn end(&mut self) {
        self.after = self.read();
    }

    /// What was used in between; nothing about a process that was not there at both times.
    pub fn usages(&self) -> Usages {
        let broker = self.broker.zip(self.before.0.zip(self.after.0));
        Usages {
            broker: broker.map(|(process, (before, after))| broker_usage(process, before, after)),
            generator: self.before.1.zip(self.after.1),
        }
    }

    fn read(&self) -> (Option<Usage>, Option<Usage>) {
        let this = BrokerProcess::this_one();
        match self.broker {
            Some(broker) if broker == this => halves(this.usage()),
            broker => (broker.and_then(|process| process.usage()), this.usage()),
        }
    }
}

/// What broker and generator used in one process.
fn halves(both: Option<Usage>) -> (Option<Usage>, Option<Usage>) {
    let halves = both.zip(cpu_s_of_threads(THREADS)).map(|(both, generator_cpu_s)| {
        let broker_cpu_s = (both.cpu_s - generator_cpu_s).max(0.0);
        (Usage { cpu_s: broker_cpu_s, ..both }, Usage { cpu_s: generator_cpu_s, ..both })
    });
    halves.unzip()
}

fn broker_usage(process: BrokerProcess, before: Usage, after: Usage) -> BrokerUsage {
    let file_systems: BTreeSet<String> =
        process.open_files().iter().filter_map(|path| file_system_of(path)).collect();
    BrokerUsage {
        pid: process.pid(),
        command_line: process.command_line(),
        file_systems: file_systems.into_iter().collect(),
        before,
        after,
    }
}
