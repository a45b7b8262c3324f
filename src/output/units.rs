//! Numbers as a person reads them.

use std::time::Duration;

/// A value and its unit, with a blank between them where there is room.
fn quantity(value: f64, unit: &str, brief: bool) -> String {
    match (brief, value < 9.95) {
        (false, _) => format!("{value:.1} {unit}"),
        (true, true) => format!("{value:.1}{unit}"),
        (true, false) => format!("{value:.0}{unit}"),
    }
}

/// `3.4 ms`, or `3.4ms`.
pub fn time(duration: Duration, brief: bool) -> String {
    let us = duration.as_micros();
    let seconds = duration.as_secs();
    match us {
        0..1000 => format!("{us}{}us", if brief { "" } else { " " }),
        // What would be rounded up to 1000 belongs to the next unit.
        1000..999_500 => quantity(us as f64 / 1e3, "ms", brief),
        999_500..59_950_000 => quantity(us as f64 / 1e6, "s", brief),
        _ if seconds < 3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `1.2 MB`, or `1.2MB`. Powers of 1000, as network people count.
pub fn bytes(count: u64, brief: bool) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count}{}B", if brief { "" } else { " " });
    }
    let mut value = count as f64 / 1e3;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    quantity(value, UNITS[unit], brief)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_a_person_reads() {
        let us = Duration::from_micros;
        assert_eq!(time(us(999), false), "999 us");
        assert_eq!(time(us(3400), false), "3.4 ms");
        assert_eq!(time(us(3400), true), "3.4ms");
        assert_eq!(time(us(23_240), true), "23ms");
        assert_eq!(time(us(999_499), true), "999ms");
        assert_eq!(time(us(999_500), true), "1.0s");
        assert_eq!(time(us(61_500_000), false), "1m01s");
        assert_eq!(time(Duration::from_secs(3 * 3600 + 300), false), "3h05m");
        assert_eq!(time(Duration::from_secs(90_000), false), "1d01h");
        assert_eq!(bytes(999, false), "999 B");
        assert_eq!(bytes(1_200_000, false), "1.2 MB");
        assert_eq!(bytes(1_200_000, true), "1.2MB");
        assert_eq!(bytes(999_499, true), "999kB");
        assert_eq!(bytes(999_500, true), "1.0MB");
    }

    #[test]
    fn brief_ones_are_short() {
        for shift in 0..64 {
            let count = u64::MAX >> shift;
            assert!(bytes(count, true).len() <= 5, "{count}");
            assert!(time(Duration::from_micros(count >> 20), true).len() <= 7, "{count}");
        }
    }
}
