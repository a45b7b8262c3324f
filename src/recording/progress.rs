//! How far a long recording has been read, for a person who waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::file::Input;

/// What takes less is not worth a word.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar on stderr, from the second second on.
pub struct Progress {
    read: Vec<Arc<AtomicU64>>,
    size: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Of these files together.
    pub fn new(inputs: &[Input]) -> Progress {
        let (sizes, read): (Vec<u64>, _) = inputs.iter().map(Input::progress).unzip();
        Progress { read, size: sizes.iter().sum(), started: Instant::now(), bar: None }
    }

    /// Show how far it is by now.
    pub fn show(&mut self) {
        if self.size == 0 || (self.bar.is_none() && self.started.elapsed() < PATIENCE) {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {eta} left");
            ProgressBar::new(self.size).with_style(style.expect("a template"))
        });
        bar.set_position(self.read.iter().map(|read| read.load(Ordering::Relaxed)).sum());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
