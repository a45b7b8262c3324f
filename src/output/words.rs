//! Parses the vocabulary: from words in JSON to values.

use super::vocabulary::{self, CAPABILITIES};
pub use super::vocabulary::{Word, reason};
use crate::event::{Direction, SecureExec, Segment, State};

/// The TCP state with this name.
pub fn state(word: &str) -> Option<State> {
    use State::*;
    let all = [
        Listen,
        SynSent,
        SynRecv,
        Established,
        FinWait1,
        FinWait2,
        CloseWait,
        Closing,
        LastAck,
        TimeWait,
        Closed,
        Unknown,
    ];
    all.into_iter().find(|&state| vocabulary::state(state) == word)
}

/// The direction with this name.
pub fn direction(word: &str) -> Option<Direction> {
    [Direction::Egress, Direction::Ingress].into_iter().find(|&one| vocabulary::direction(one) == word)
}

/// The kind of segment with this name.
pub fn segment(word: &str) -> Option<Segment> {
    let all = [Segment::Syn, Segment::SynAck, Segment::Data, Segment::Fin, Segment::Probe];
    all.into_iter().find(|&segment| vocabulary::segment(segment) == word)
}

/// A set of capabilities; ANY_CAPS is all of them. Unknown names are ignored.
pub fn capabilities(text: &str) -> u64 {
    if text == "ANY_CAPS" {
        return u64::MAX;
    }
    let bit = |name: &str| {
        let known = CAPABILITIES.iter().position(|known| *known == name);
        known.or_else(|| name.strip_prefix("CAP_")?.parse().ok()).filter(|bit| *bit < 64)
    };
    text.split(" | ").filter_map(bit).fold(0, |set, bit| set | 1 << bit)
}

/// The privileges gained through an executable.
pub fn secureexec(text: &str) -> SecureExec {
    let has = |word| text.split(" | ").any(|one| one == word);
    SecureExec {
        setuid: has("SETUID"),
        setgid: has("SETGID"),
        file_caps: has("FILE_CAPS"),
        fileless: has("FILELESS_EXEC"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for set in [0, 1, 1 << 10 | 1 << 12, 1 << 40 | 1 << 45 | 1 << 63, u64::MAX] {
            assert_eq!(capabilities(&vocabulary::capabilities(set, u64::MAX)), set);
        }
        let flags = SecureExec { setuid: true, fileless: true, ..SecureExec::default() };
        assert_eq!(secureexec(&vocabulary::secureexec(flags)), flags);
        assert_eq!(state("FIN_WAIT2"), Some(State::FinWait2));
        assert_eq!((state(""), direction("up"), segment("RST")), (None, None, None));
        assert_eq!(capabilities("CAP_64 | CAP_NOTHING | CAP_KILL"), 1 << 5);
    }
}
