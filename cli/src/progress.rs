//! A line on the terminal that says how far things are. In a pipe there is none.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A progress line on stderr, or nothing where stderr is no terminal. Ends with its owner.
#[derive(Debug)]
pub struct Progress(Option<ProgressBar>);

impl Progress {
    /// Counts bytes; with a `total`, towards it.
    pub fn bytes(total: Option<u64>) -> Progress {
        let template = match total {
            Some(_) => "{bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {msg}",
            None => "{spinner} {bytes}  {bytes_per_sec}  {msg}",
        };
        Progress::new(total, template)
    }

    /// Says whatever it is told.
    pub fn text() -> Progress {
        Progress::new(None, "{spinner} {elapsed}  {msg}")
    }

    fn new(total: Option<u64>, template: &str) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let style = ProgressStyle::with_template(template).expect("a constant template is valid");
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress(Some(bar))
    }

    /// Moves on.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }

    /// Says `text` beside the counts; made only where it is shown.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.0 {
            bar.set_message(text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
