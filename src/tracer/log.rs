//! Collects libbpf's log messages.

use std::sync::Mutex;

use libbpf_rs::PrintLevel;

/// libbpf's messages since the last call of [`take_log`].
static LOG: Mutex<String> = Mutex::new(String::new());

pub(super) fn keep_log(_: PrintLevel, text: String) {
    if let Ok(mut log) = LOG.lock() {
        log.push_str(&text);
    }
}

/// Takes the messages collected so far.
pub fn take_log() -> String {
    LOG.lock().map(|mut log| std::mem::take(&mut *log)).unwrap_or_default()
}

/// Looks at the messages without removing them.
pub(super) fn peek_log<T>(look: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    LOG.lock().ok().and_then(|log| look(&log))
}
