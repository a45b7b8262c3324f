//! The time of day, local or UTC.

use std::fmt::Write;

use jiff::{Timestamp, tz::TimeZone};

use crate::output::timestamp::milliseconds;

/// Columns of a time with milliseconds.
pub const LONG: usize = 12;

/// The time zone of the TIME column.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// The local time zone: TZ, or /etc/localtime.
    pub fn local() -> Zone {
        Zone(TimeZone::system())
    }

    /// The UTC time zone.
    pub fn utc() -> Zone {
        Zone(TimeZone::UTC)
    }
}

/// Formats times of day. Most events are in the same second as the previous one, so its text is cached.
#[derive(Debug)]
pub struct Clock {
    zone: TimeZone,
    second: Option<i64>,
    text: String,
}

impl Clock {
    /// A clock in this time zone.
    pub fn new(Zone(zone): Zone) -> Clock {
        Clock { zone, second: None, text: String::new() }
    }

    /// The header of a column of this width.
    pub fn title(&self, width: usize) -> &'static str {
        match (self.zone == TimeZone::UTC, width >= LONG) {
            (false, _) => "TIME",
            (true, true) => "TIME (UTC)",
            (true, false) => "UTC",
        }
    }

    /// Appends `16:43:33.074`, without the milliseconds if the column is too narrow for them.
    pub fn put(&mut self, line: &mut String, wall_ns: i128, width: usize) {
        let time = Timestamp::from_nanosecond(wall_ns).unwrap_or_default();
        // No time zone has an offset with a fraction of a second.
        if self.second != Some(time.as_second()) {
            let local = self.zone.to_datetime(time);
            self.text.clear();
            write!(self.text, "{:02}:{:02}:{:02}", local.hour(), local.minute(), local.second())
                .expect("a String takes everything");
            self.second = Some(time.as_second());
        }
        line.push_str(&self.text);
        if width >= LONG {
            line.push('.');
            let ns = u64::try_from(time.subsec_nanosecond()).unwrap_or_default();
            line.extend(milliseconds(ns).map(char::from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn india() -> Zone {
        Zone(TimeZone::fixed(jiff::tz::offset(5).saturating_add(jiff::Span::new().minutes(30))))
    }

    #[test]
    fn time_of_day() {
        let mut utc = Clock::new(Zone::utc());
        let mut india = Clock::new(india());
        let text = |clock: &mut Clock, wall_ns, width| {
            let mut line = String::new();
            clock.put(&mut line, wall_ns, width);
            line
        };
        assert_eq!(text(&mut utc, 86_399_999_000_000, LONG), "23:59:59.999");
        assert_eq!(text(&mut utc, 86_399_001_000_000, LONG), "23:59:59.001");
        assert_eq!(text(&mut utc, 0, 8), "00:00:00");
        assert_eq!(text(&mut utc, i128::MAX, 8), "00:00:00");
        assert_eq!(text(&mut india, 0, LONG), "05:30:00.000");
    }

    #[test]
    fn the_header_shows_utc() {
        assert_eq!(Clock::new(Zone::utc()).title(LONG), "TIME (UTC)");
        assert_eq!(Clock::new(Zone::utc()).title(8), "UTC");
        assert_eq!(Clock::new(india()).title(LONG), "TIME");
    }
}
