//! The progress bar of a long replay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::file::Input;

/// Faster replays show no progress.
const PATIENCE: Duration = Duration::from_secs(1);

/// A progress bar on stderr, shown after one second.
pub struct Progress {
    read: Vec<Arc<AtomicU64>>,
    size: u64,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Progress through these files as a whole.
    pub fn new(inputs: &[Input]) -> Progress {
        let (sizes, read): (Vec<u64>, _) = inputs.iter().map(Input::progress).unzip();
        Progress { read, size: sizes.iter().sum(), started: Instant::now(), bar: None }
    }

    /// Updates the bar, if the replay has taken long enough to show it.
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
