//! What libbpf has to say.

use std::sync::Mutex;

use libbpf_rs::PrintLevel;

/// libbpf's own words since the last call, for `--verbose`.
static LOG: Mutex<String> = Mutex::new(String::new());

pub(super) fn keep_log(_: PrintLevel, text: String) {
    if let Ok(mut log) = LOG.lock() {
        log.push_str(&text);
    }
}

/// Take what libbpf has said so far.
pub fn take_log() -> String {
    LOG.lock().map(|mut log| std::mem::take(&mut *log)).unwrap_or_default()
}

/// Looks at what has been kept, and leaves it there.
pub(super) fn peek_log<T>(look: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    LOG.lock().ok().and_then(|log| look(&log))
}
