//! The time of day, here or in UTC.

use jiff::{Timestamp, tz::TimeZone};

/// Columns of a time with milliseconds.
pub const LONG: usize = 12;

/// The time zone of the table's clock.
#[derive(Debug, Clone)]
pub struct Zone(TimeZone);

impl Zone {
    /// This host's: TZ, or /etc/localtime.
    pub fn local() -> Zone {
        Zone(TimeZone::system())
    }

    /// UTC.
    pub fn utc() -> Zone {
        Zone(TimeZone::UTC)
    }

    /// The header of a column so wide.
    pub fn title(&self, width: usize) -> &'static str {
        match (self.0 == TimeZone::UTC, width >= LONG) {
            (false, _) => "TIME",
            (true, true) => "TIME (UTC)",
            (true, false) => "UTC",
        }
    }

    /// `16:43:33.074`, or without the milliseconds where there is no room for them.
    pub fn clock(&self, wall_ns: i128, width: usize) -> String {
        let time = Timestamp::from_nanosecond(wall_ns).unwrap_or_default();
        let time = self.0.to_datetime(time);
        let mut text = format!("{:02}:{:02}:{:02}", time.hour(), time.minute(), time.second());
        if width >= LONG {
            text.push_str(&format!(".{:03}", time.subsec_nanosecond() / 1_000_000));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day() {
        let utc = Zone::utc();
        assert_eq!(utc.clock(86_399_999_000_000, LONG), "23:59:59.999");
        assert_eq!(utc.clock(0, 8), "00:00:00");
        assert_eq!(utc.clock(i128::MAX, 8), "00:00:00");
        let india = Zone(TimeZone::fixed(jiff::tz::offset(5).saturating_add(jiff::Span::new().minutes(30))));
        assert_eq!(india.clock(0, LONG), "05:30:00.000");
    }

    #[test]
    fn utc_is_said() {
        assert_eq!(Zone::utc().title(LONG), "TIME (UTC)");
        assert_eq!(Zone::utc().title(8), "UTC");
        assert_eq!(Zone(TimeZone::fixed(jiff::tz::offset(2))).title(LONG), "TIME");
    }
}
