//! Durations and byte counts for people.

use std::{fmt, time::Duration};

/// A duration as `3.4 ms`, or `3.4ms` with `true` (brief).
#[derive(Debug, Clone, Copy)]
pub struct Time(pub Duration, pub bool);

/// A number of bytes as `1.2 MB`, or `1.2MB` with `true` (brief). Units are powers of 1000, as usual in networking.
#[derive(Debug, Clone, Copy)]
pub struct Bytes(pub u64, pub bool);

/// Formats a number faster than `write!`.
fn number(f: &mut fmt::Formatter<'_>, number: u64) -> fmt::Result {
    f.write_str(itoa::Buffer::new().format(number))
}

/// Formats a number that needs no rounding.
fn whole(f: &mut fmt::Formatter<'_>, count: u64, unit: &str, brief: bool) -> fmt::Result {
    number(f, count)?;
    f.write_str(if brief { "" } else { " " })?;
    f.write_str(unit)
}

/// Formats a count in a unit of `size`. In brief form, tenths are shown only below ten.
fn quantity(f: &mut fmt::Formatter<'_>, count: u64, (size, unit): (u64, &str), brief: bool) -> fmt::Result {
    let rounded = |step: u64| count.saturating_add(step / 2) / step;
    let tenths = rounded(size / 10);
    if brief && tenths >= 100 {
        number(f, rounded(size))?;
        return f.write_str(unit);
    }
    number(f, tenths / 10)?;
    f.write_str(".")?;
    number(f, tenths % 10)?;
    f.write_str(if brief { "" } else { " " })?;
    f.write_str(unit)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let &Time(duration, brief) = self;
        let seconds = duration.as_secs();
        // Saturates only beyond 500,000 years.
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        match us {
            0..1000 => whole(f, us, "us", brief),
            // Values that would round to 1000 use the next unit.
            1000..999_500 => quantity(f, us, (1000, "ms"), brief),
            999_500..59_950_000 => quantity(f, us, (1_000_000, "s"), brief),
            _ if seconds < 3600 => write!(f, "{}m{:02}s", seconds / 60, seconds % 60),
            _ if seconds < 86_400 => write!(f, "{}h{:02}m", seconds / 3600, seconds / 60 % 60),
            _ => write!(f, "{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        let &Bytes(count, brief) = self;
        if count < 1000 {
            return whole(f, count, "B", brief);
        }
        let (mut unit, mut size) = (0, 1000);
        // Likewise: 999.5 kB is 1.0 MB.
        while unit + 1 < UNITS.len() && count >= size / 10 * 9995 {
            unit += 1;
            size *= 1000;
        }
        quantity(f, count, (size, UNITS[unit]), brief)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_readable_units() {
        let us = Duration::from_micros;
        assert_eq!(Time(us(999), false).to_string(), "999 us");
        assert_eq!(Time(us(3400), false).to_string(), "3.4 ms");
        assert_eq!(Time(us(3400), true).to_string(), "3.4ms");
        assert_eq!(Time(us(23_240), true).to_string(), "23ms");
        assert_eq!(Time(us(999_499), true).to_string(), "999ms");
        assert_eq!(Time(us(999_500), true).to_string(), "1.0s");
        assert_eq!(Time(us(61_500_000), false).to_string(), "1m01s");
        assert_eq!(Time(Duration::from_secs(3 * 3600 + 300), false).to_string(), "3h05m");
        assert_eq!(Time(Duration::from_secs(90_000), false).to_string(), "1d01h");
        assert_eq!(Bytes(999, false).to_string(), "999 B");
        assert_eq!(Bytes(1_200_000, false).to_string(), "1.2 MB");
        assert_eq!(Bytes(1_200_000, true).to_string(), "1.2MB");
        assert_eq!(Bytes(999_499, true).to_string(), "999kB");
        assert_eq!(Bytes(u64::MAX, false).to_string(), "18.4 EB");
        assert_eq!(Bytes(999_500, true).to_string(), "1.0MB");
    }

    #[test]
    fn brief_units() {
        for shift in 0..64 {
            let count = u64::MAX >> shift;
            assert!(Bytes(count, true).to_string().len() <= 5, "{count}");
            assert!(Time(Duration::from_micros(count >> 20), true).to_string().len() <= 7, "{count}");
        }
    }
}
