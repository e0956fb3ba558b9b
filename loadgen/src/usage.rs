//! Reads what broker and generator use, before and after the measured part.

use crate::broker_process::{BrokerProcess, Usage};
use crate::plan::Plan;
use crate::report::Usages;

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
            broker: broker.map(|(process, (before, after))| (process.pid(), before, after)),
            generator: self.before.1.zip(self.after.1),
        }
    }

    fn read(&self) -> (Option<Usage>, Option<Usage>) {
        (self.broker.and_then(|process| process.usage()), BrokerProcess::this_one().usage())
    }
}
