//! Options for the envelope of the odr format.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

/// The last second of the year 9999.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// The envelope metadata that can be set on the command line.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "ODR")]
pub struct OdrArgs {
    /// The project the data belongs to
    #[arg(long, value_name = "NAME", default_value = "tcptrace")]
    pub project: String,

    /// Identifies this host; its machine id by default
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,

    /// What kind of agent this is
    #[arg(long, value_name = "NAME", default_value = "tcptrace")]
    pub agent_type: String,

    /// When the data may be deleted: a date, or a duration from now
    #[arg(long, value_name = "WHEN", default_value = "100y", value_parser = expiration)]
    pub expiration: Expiration,
}

/// When data may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiration {
    /// This long after the start.
    After(Duration),
    /// At a fixed time.
    At(SystemTime),
}

impl Expiration {
    /// The absolute time, with durations counted from `now`.
    pub fn counted_from(self, now: SystemTime) -> SystemTime {
        let last = UNIX_EPOCH + LAST;
        match self {
            Expiration::After(duration) => now.checked_add(duration).unwrap_or(last).min(last),
            Expiration::At(time) => time,
        }
    }
}

fn expiration(text: &str) -> Result<Expiration, String> {
    let with_time = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    if let Ok(time) = humantime::parse_rfc3339_weak(&with_time) {
        return Ok(Expiration::At(time));
    }
    humantime::parse_duration(text).map(Expiration::After).map_err(|_| {
        "expected a date such as 2030-12-31 or 2030-12-31T23:59:59Z, or a duration such as 90days".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiration_is_a_date_or_a_duration() {
        let at = |seconds| Ok(Expiration::At(UNIX_EPOCH + Duration::from_secs(seconds)));
        assert_eq!(expiration("2030-01-01"), at(1_893_456_000));
        assert_eq!(expiration("2030-01-01 00:00:09"), at(1_893_456_009));
        assert_eq!(expiration("2030-01-01T00:00:09Z"), at(1_893_456_009));
        assert_eq!(expiration("90days"), Ok(Expiration::After(Duration::from_secs(90 * 86_400))));
        for wrong in ["", "tomorrow", "2030-13-01", "2030-01-01T", "-5s", "名名名名"] {
            assert!(expiration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn expiration_is_at_most_the_year_9999() {
        let never = Expiration::After(Duration::MAX);
        assert_eq!(never.counted_from(SystemTime::now()), UNIX_EPOCH + LAST);
    }
}
