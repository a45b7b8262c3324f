//! The widths of the columns.

use super::clock;

/// Columns of a process id.
pub const PID: usize = 7;
/// Columns between the fields.
const BLANKS: usize = 6;
/// From this width on, details are in words.
const WORDS_MIN: usize = 160;

/// Indexes of the columns that grow.
const TIME: usize = 0;
const EVENT: usize = 1;
const COMMAND: usize = 2;
const LOCAL: usize = 3;
const REMOTE: usize = 4;
const DETAILS: usize = 5;

/// How columns beyond the minimum are distributed: which field grows next, and up to which width.
const GROWTH: [(usize, usize); 13] = [
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
    (DETAILS, 50),
    // the longest IPv6 address, with a port
    (REMOTE, 47),
    (LOCAL, 47),
    (DETAILS, usize::MAX),
];

/// The minimum: on narrower terminals the lines are this wide.
const NARROWEST: usize = 80;

/// The widths needed so far; fields get no more than that, to leave room for others. They grow in steps, since each
/// change moves all columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    command: usize,
    local: usize,
    remote: usize,
}

impl Needs {
    const COMMAND: [usize; 2] = [10, 16];
    const END: [usize; 4] = [16, 21, 32, 47];

    /// The widths before the first line.
    pub fn new() -> Needs {
        Needs { command: Self::COMMAND[0], local: Self::END[0], remote: Self::END[0] }
    }

    /// Takes the widths of another line into account.
    pub fn grow(&mut self, command: usize, local: usize, remote: usize) {
        let step = |steps: &[usize], width| {
            let fits = steps.iter().find(|&&step| width <= step);
            *fits.or(steps.last()).unwrap_or(&width)
        };
        self.command = self.command.max(step(&Self::COMMAND, command));
        self.local = self.local.max(step(&Self::END, local));
        self.remote = self.remote.max(step(&Self::END, remote));
    }
}

/// The widths of the fields that vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The width of TIME in columns.
    pub time: usize,
    /// The width of EVENT in columns.
    pub event: usize,
    /// The width of COMMAND in columns.
    pub command: usize,
    /// The width of LOCAL in columns.
    pub local: usize,
    /// The width of REMOTE in columns.
    pub remote: usize,
    /// The width of DETAILS; none if the width of fields is not limited (not a terminal).
    pub details: Option<usize>,
    /// Whether details use symbols rather than words.
    pub brief: bool,
}

impl Layout {
    /// The layout for a terminal of this width, or for a file.
    pub fn of(columns: Option<usize>, needs: Needs) -> Layout {
        let Some(columns) = columns else {
            return Layout {
                time: clock::LONG,
                event: 8,
                command: 16,
                local: 21,
                remote: 21,
                details: None,
                brief: false,
            };
        };
        let mut widths = [8, 7, 8, 6, needs.remote.min(20), 0];
        widths[DETAILS] = NARROWEST - (PID + widths.iter().sum::<usize>() + BLANKS);
        let needed = |column| match column {
            COMMAND => needs.command,
            LOCAL => needs.local,
            REMOTE => needs.remote,
            _ => usize::MAX,
        };
        let mut extra = columns.saturating_sub(NARROWEST);
        for (column, most) in GROWTH {
            let wanted = most.min(needed(column)).saturating_sub(widths[column]);
            // milliseconds are shown in full or not at all
            let step = if column == TIME && extra < wanted { 0 } else { extra.min(wanted) };
            widths[column] += step;
            extra -= step;
        }
        let [time, event, command, local, remote, details] = widths;
        Layout { time, event, command, local, remote, details: Some(details), brief: columns < WORDS_MIN }
    }

    /// The number of characters of a field that may be shown.
    pub fn room(&self, column: usize) -> usize {
        if self.details.is_some() { column } else { usize::MAX }
    }

    /// Columns before the details.
    #[cfg(test)]
    fn before_details(&self) -> usize {
        self.time + self.event + PID + self.command + self.local + self.remote + BLANKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The widths needed for commands and ends of these lengths.
    fn needs(command: usize, end: usize) -> Needs {
        let mut needs = Needs::new();
        needs.grow(command, end, end);
        needs
    }

    #[test]
    fn every_column_of_the_terminal_is_used() {
        for columns in NARROWEST..300 {
            for needs in [Needs::new(), needs(16, 21), needs(100, 100)] {
                let layout = Layout::of(Some(columns), needs);
                let details = layout.details.expect("a limit");
                assert_eq!(layout.before_details() + details, columns, "{layout:?}");
            }
        }
    }

    #[test]
    fn nothing_is_shortened_at_two_hundred_columns() {
        let layout = Layout::of(Some(200), needs(16, 47));
        assert!(layout.local >= 47 && layout.remote >= 47 && layout.time == clock::LONG);
        assert!(layout.details >= Some(50) && !layout.brief);
    }

    #[test]
    fn details_use_the_columns_that_addresses_do_not() {
        let short = Layout::of(Some(120), needs(4, 15));
        assert!(short.details >= Some(40), "{short:?}");
        let long = Layout::of(Some(120), needs(4, 47));
        assert!(long.local >= 21 && long.remote >= 21, "{long:?}");
    }

    #[test]
    fn widths_grow_in_few_steps() {
        let mut needs = Needs::new();
        let mut seen = vec![needs];
        for width in 0..100 {
            needs.grow(width, width, width);
            seen.push(needs);
        }
        seen.dedup();
        assert_eq!(seen.len(), 5, "{seen:?}");
        needs.grow(0, 0, 0);
        assert_eq!(Some(&needs), seen.last());
    }
}
