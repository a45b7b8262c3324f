//! The stop conditions of a run, combined to one answer: how much longer to run.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::output::writer::STALLED;

/// How long to wait, after a command has ended, for its connections to close.
const GRACE: Duration = Duration::from_secs(1);

/// Stops on a signal, a deadline, a number of events or the end of a command, whichever comes first.
#[derive(Debug, Clone)]
pub struct Stop {
    signalled: Arc<AtomicBool>,
    deadline: Option<Instant>,
    events_left: Option<u64>,
    no_wait: bool,
    command_ended: Option<Arc<OnceLock<Instant>>>,
}

impl Stop {
    /// `signalled` is set by a signal handler.
    pub fn new(signalled: Arc<AtomicBool>, deadline: Option<Instant>, count: Option<u64>) -> Self {
        Stop { signalled, deadline, events_left: count, command_ended: None, no_wait: false }
    }

    /// Stops as soon as everything available has been printed.
    pub fn no_wait(self) -> Self {
        Stop { no_wait: true, ..self }
    }

    /// Whether to abandon a reader that has read nothing for `stalled`. A reader that is merely slow is not abandoned.
    pub fn abandons_output(&self, now: Instant, stalled: Duration) -> bool {
        stalled >= STALLED && (self.signalled() || (!self.no_wait && self.remaining(now).is_none()))
    }

    /// Also stops a short while after `ended` is set.
    pub fn after(mut self, ended: Arc<OnceLock<Instant>>) -> Self {
        self.command_ended = Some(ended);
        self
    }

    fn ended_at(&self) -> Option<Instant> {
        self.command_ended.as_ref().and_then(|ended| ended.get().copied())
    }

    /// Whether the command has ended, so that only the ends of its connections are awaited.
    pub fn only_waits_for_closes(&self) -> bool {
        self.ended_at().is_some()
    }

    /// Whether a signal arrived.
    pub fn signalled(&self) -> bool {
        self.signalled.load(Ordering::Relaxed)
    }

    /// How long to run from `now` before checking again; none to stop at once.
    pub fn remaining(&self, now: Instant) -> Option<Duration> {
        if self.no_wait || self.signalled() || self.events_left == Some(0) {
            return None;
        }
        let grace_over = self.ended_at().map(|ended| ended + GRACE);
        match [self.deadline, grace_over].into_iter().flatten().min() {
            Some(deadline) => deadline.checked_duration_since(now).filter(|left| !left.is_zero()),
            None => Some(Duration::MAX),
        }
    }

    /// Whether another event may be printed.
    pub fn wants_more(&self) -> bool {
        self.events_left != Some(0)
    }

    /// Counts a printed event.
    pub fn record_printed(&mut self) {
        if let Some(left) = &mut self.events_left {
            *left = left.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_until_the_deadline() {
        let start = Instant::now();
        let stop = Stop::new(Arc::default(), Some(start + Duration::from_secs(3)), None);
        assert_eq!(stop.remaining(start), Some(Duration::from_secs(3)));
        assert_eq!(stop.remaining(start + Duration::from_secs(3)), None);
        assert_eq!(stop.remaining(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn runs_until_enough_events_are_printed() {
        let mut stop = Stop::new(Arc::default(), None, Some(2));
        stop.record_printed();
        assert!(stop.wants_more() && stop.remaining(Instant::now()).is_some());
        stop.record_printed();
        assert!(!stop.wants_more() && stop.remaining(Instant::now()).is_none());
    }

    #[test]
    fn no_wait_runs_still_wait_for_a_slow_reader() {
        let signalled = Arc::new(AtomicBool::new(false));
        let stop = Stop::new(Arc::clone(&signalled), None, None).no_wait();
        assert_eq!(stop.remaining(Instant::now()), None);
        assert!(stop.wants_more() && !stop.abandons_output(Instant::now(), STALLED));
        signalled.store(true, Ordering::Relaxed);
        assert!(stop.abandons_output(Instant::now(), STALLED));
    }

    #[test]
    fn a_slow_reader_is_waited_for() {
        let stop = Stop::new(Arc::new(AtomicBool::new(true)), None, None);
        assert!(!stop.abandons_output(Instant::now(), STALLED - Duration::from_millis(1)));
    }

    #[test]
    fn runs_for_a_while_after_the_command() {
        let (start, ended) = (Instant::now(), Arc::new(OnceLock::new()));
        let stop = Stop::new(Arc::default(), None, None).after(Arc::clone(&ended));
        assert_eq!((stop.remaining(start), stop.only_waits_for_closes()), (Some(Duration::MAX), false));
        ended.set(start).expect("set once");
        assert_eq!((stop.remaining(start), stop.only_waits_for_closes()), (Some(GRACE), true));
        assert_eq!(stop.remaining(start + GRACE), None);
    }

    #[test]
    fn runs_until_a_signal() {
        let signalled = Arc::new(AtomicBool::new(false));
        let stop = Stop::new(Arc::clone(&signalled), None, None);
        assert!(stop.remaining(Instant::now()).is_some());
        signalled.store(true, Ordering::Relaxed);
        assert_eq!(stop.remaining(Instant::now()), None);
    }
}
