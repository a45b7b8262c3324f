//! When to stop: one value that answers "go on for how long?".

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A signal, a deadline or a number of events, whichever comes first.
#[derive(Debug, Clone)]
pub struct Stop {
    signalled: Arc<AtomicBool>,
    deadline: Option<Instant>,
    remaining: Option<u64>,
}

impl Stop {
    /// `signalled` is set from outside, by a signal handler for instance.
    pub fn new(signalled: Arc<AtomicBool>, deadline: Option<Instant>, count: Option<u64>) -> Self {
        Stop { signalled, deadline, remaining: count }
    }

    /// Whether a signal came.
    pub fn signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }

    /// How long it may go on from `now` before this must be asked again; none to stop at once.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        if self.signalled() || self.remaining == Some(0) {
            return None;
        }
        match self.deadline {
            Some(deadline) => deadline.checked_duration_since(now).filter(|left| !left.is_zero()),
            None => Some(Duration::MAX),
        }
    }

    /// Whether one more event may be printed.
    pub fn admits(&self) -> bool {
        self.remaining != Some(0)
    }

    /// An event was printed.
    pub fn counted(&mut self) {
        if let Some(remaining) = &mut self.remaining {
            *remaining = remaining.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_until_the_deadline() {
        let start = Instant::now();
        let stop = Stop::new(Arc::default(), Some(start + Duration::from_secs(3)), None);
        assert_eq!(stop.left(start), Some(Duration::from_secs(3)));
        assert_eq!(stop.left(start + Duration::from_secs(3)), None);
        assert_eq!(stop.left(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn goes_on_until_enough_events_came() {
        let mut stop = Stop::new(Arc::default(), None, Some(2));
        stop.counted();
        assert!(stop.admits() && stop.left(Instant::now()).is_some());
        stop.counted();
        assert!(!stop.admits() && stop.left(Instant::now()).is_none());
    }

    #[test]
    fn goes_on_until_a_signal() {
        let signalled = Arc::new(AtomicBool::new(false));
        let stop = Stop::new(Arc::clone(&signalled), None, None);
        assert!(stop.left(Instant::now()).is_some());
        signalled.store(true, Ordering::Relaxed);
        assert_eq!(stop.left(Instant::now()), None);
    }
}
