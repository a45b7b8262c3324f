//! Timestamps in the format of RFC 3339.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

const NS_PER_S: u64 = 1_000_000_000;

/// Formats times in UTC with milliseconds. Most events are in the same second as the previous one, so its text is
/// cached.
#[derive(Debug, Default)]
pub struct Timestamps {
    second: Option<u64>,
    /// The text of the second, without the `Z`.
    text: String,
}

impl Timestamps {
    /// Appends a time given in nanoseconds since 1970; earlier times become 1970.
    pub fn put(&mut self, out: &mut Vec<u8>, wall_ns: i128) {
        let ns = u64::try_from(wall_ns).unwrap_or_default();
        let second = ns / NS_PER_S;
        if self.second != Some(second) {
            self.text.clear();
            let time = UNIX_EPOCH + Duration::from_secs(second);
            write!(self.text, "{}", humantime::format_rfc3339_seconds(time))
                .expect("a String takes everything");
            self.text.truncate(self.text.len() - "Z".len());
            self.second = Some(second);
        }
        out.extend_from_slice(self.text.as_bytes());
        out.push(b'.');
        out.extend_from_slice(&milliseconds(ns));
        out.push(b'Z');
    }
}

/// The milliseconds of a time in nanoseconds, as three digits.
pub fn milliseconds(ns: u64) -> [u8; 3] {
    let ms = ns % NS_PER_S / 1_000_000;
    [ms / 100, ms / 10 % 10, ms % 10].map(|digit| b'0' + digit as u8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::vocabulary;

    proptest! {
        /// The result does not depend on earlier calls.
        #[test]
        fn timestamps_match_humantime(times in prop::collection::vec(0_u64..4_000_000_000_000_000_000, 1..5), near: u32) {
            let mut timestamps = Timestamps::default();
            for time in times {
                for ns in [i128::from(time), i128::from(time) + i128::from(near)] {
                    let mut out = Vec::new();
                    timestamps.put(&mut out, ns);
                    prop_assert_eq!(String::from_utf8_lossy(&out), vocabulary::time(ns));
                }
            }
        }
    }

    #[test]
    fn times_before_1970_become_1970() {
        let mut out = Vec::new();
        Timestamps::default().put(&mut out, -1);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }
}
