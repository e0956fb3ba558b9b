//! Where a machine tells of itself: below `/proc` and `/sys`, or below a made-up tree that stands for them in tests.

use std::fs;
use std::path::PathBuf;

/// A machine, by the directory that `proc` and `sys` lie in.
#[derive(Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    pub fn this_one() -> Machine {
        Machine { root: PathBuf::from("/") }
    }

    /// An answer of the kernel, without the blanks around it; `None` where this machine, or this container, does not
    /// tell. `path` starts below the root: `proc/swaps`.
    pub fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The same as a number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }
}

/// A machine that says what a test wants to hear. Goes away with the directory.
#[cfg(test)]
pub fn made_up(answers: &[(&str, &str)]) -> (tempfile::TempDir, Machine) {
    let home = tempfile::tempdir().unwrap();
    for (path, answer) in answers {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, answer).unwrap();
    }
    let machine = Machine { root: home.path().to_owned() };
    (home, machine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_told_is_none() {
        let (_home, machine) = made_up(&[("proc/a", " 12\n"), ("proc/b", "x\n")]);
        assert_eq!(machine.read("proc/b").as_deref(), Some("x"));
        assert_eq!(machine.number("proc/a"), Some(12));
        assert_eq!((machine.number("proc/b"), machine.number("proc/c")), (None, None));
    }
}
