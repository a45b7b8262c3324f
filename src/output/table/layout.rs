//! How wide the columns are.

use super::{super::text::pad, clock};

/// Columns of a process id.
const PID: usize = 7;
/// From so many columns on, the details are in words.
pub const VERBOSE_MIN: usize = 50;
/// Between the columns.
const BLANKS: usize = 6;

/// The columns that grow.
const TIME: usize = 0;
const EVENT: usize = 1;
const COMMAND: usize = 2;
const LOCAL: usize = 3;
const REMOTE: usize = 4;
const DETAILS: usize = 5;

/// Which column gets what there is beyond the narrowest, and up to which width.
const GROWTH: [(usize, usize); 12] = [
    (REMOTE, 21),
    // most IPv4 addresses, with a port
    (LOCAL, 16),
    (DETAILS, 21),
    (COMMAND, 10),
    (DETAILS, 24),
    (TIME, clock::LONG),
    (EVENT, 8),
    (LOCAL, 21),
    (COMMAND, 16),
    // as wide as IPv6 can be
    (REMOTE, 47),
    (LOCAL, 47),
    (DETAILS, usize::MAX),
];

/// Below this the lines are as on a terminal so wide.
const NARROWEST: usize = 80;

/// The columns that differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The clock.
    pub time: usize,
    /// The kind of event.
    pub event: usize,
    /// The process's name.
    pub command: usize,
    /// This host's end.
    pub local: usize,
    /// The other end.
    pub remote: usize,
    /// What is left; none for no limit, nor for any other column.
    pub details: Option<usize>,
}

impl Layout {
    /// For a terminal so wide, or for a file.
    pub fn of(columns: Option<usize>) -> Layout {
        let Some(columns) = columns else {
            return Layout { time: clock::LONG, event: 8, command: 16, local: 21, remote: 21, details: None };
        };
        let mut widths = [8, 7, 8, 6, 20, 0];
        widths[DETAILS] = NARROWEST - (PID + widths.iter().sum::<usize>() + BLANKS);
        let mut extra = columns.saturating_sub(NARROWEST);
        for (column, most) in GROWTH {
            let wanted = most - widths[column];
            // a clock with half the milliseconds is none
            let step = if column == TIME && extra < wanted { 0 } else { extra.min(wanted) };
            widths[column] += step;
            extra -= step;
        }
        let [time, event, command, local, remote, details] = widths;
        Layout { time, event, command, local, remote, details: Some(details) }
    }

    /// How much of a column's text may be shown.
    pub fn room(&self, column: usize) -> usize {
        if self.details.is_some() { column } else { usize::MAX }
    }

    /// All but the details, each in its column; `event` is that wide already, with its colour.
    pub fn line(
        &self,
        time: &str,
        event: &str,
        pid: &str,
        command: &str,
        local: &str,
        remote: &str,
    ) -> String {
        format!(
            "{} {} {pid:>PID$} {} {} {} ",
            pad(time, self.time),
            event,
            pad(command, self.command),
            pad(local, self.local),
            pad(remote, self.remote),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_the_terminal_is_used() {
        for columns in NARROWEST..300 {
            let layout = Layout::of(Some(columns));
            let line = layout.line("", &pad("", layout.event), "", "", "", "").len();
            assert_eq!(line + layout.details.expect("a limit"), columns, "{layout:?}");
        }
    }

    #[test]
    fn at_two_hundred_nothing_needs_to_be_shortened() {
        let layout = Layout::of(Some(200));
        assert!(layout.local >= 47 && layout.remote >= 47 && layout.time == clock::LONG);
        assert!(layout.details >= Some(VERBOSE_MIN));
    }
}
