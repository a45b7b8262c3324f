//! Decodes the command line from the bytes of argv.

/// argv without argv\[0\], joined with blanks, as text.
///
/// `bytes` is argv as it lies in memory: NUL-ended strings. With `title`, the process has overwritten it with a text up
/// to the first NUL, as setproctitle(3) does; the result is that text, as in /proc/PID/cmdline. nginx and others do
/// this without overwriting the last NUL: then there is a string with blanks, followed only by empty ones. `cut` marks
/// the end as missing.
pub fn join(bytes: &[u8], title: bool, cut: bool) -> String {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let first = parts.next().unwrap_or_default();
    let rest = parts.next().unwrap_or_default();
    if title {
        return String::from_utf8_lossy(first).into_owned();
    }
    if !rest.is_empty() && rest.iter().all(|&byte| byte == 0) && first.contains(&b' ') {
        return String::from_utf8_lossy(first.trim_ascii_end()).into_owned();
    }
    let rest = if cut { rest } else { rest.strip_suffix(&[0]).unwrap_or(rest) };
    let mut joined: Vec<u8> = rest.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    if cut {
        joined.truncate(whole_characters(&joined));
        joined.extend_from_slice(b"...");
    }
    String::from_utf8_lossy(&joined).into_owned()
}

/// The number of bytes before a character that was cut.
fn whole_characters(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        Some(last) if std::str::from_utf8(last.invalid()).is_err_and(|error| error.error_len().is_none()) => {
            bytes.len() - last.invalid().len()
        }
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::join;

    #[test]
    fn leaves_out_the_program_and_joins_the_rest() {
        assert_eq!(join(b"curl\0-sS\0http://x/\0", false, false), "-sS http://x/");
        assert_eq!(join(b"bash\0", false, false), "");
        assert_eq!(join(b"", false, false), "");
        assert_eq!(join(b"sh\0-c\0\0", false, false), "-c ");
    }

    #[test]
    fn truncation_is_marked() {
        assert_eq!(join(b"cat\0one\0tw", false, true), "one tw...");
        assert_eq!(join(b"cat\0one\0", false, true), "one ...");
        assert_eq!(join("cat\0één".as_bytes(), false, true), "één...");
        assert_eq!(join(&"cat\0één".as_bytes()[..6], false, true), "é...");
        assert_eq!(join(&"cat\0é€".as_bytes()[..8], false, true), "é...");
        assert_eq!(join(b"cat\0\xff\xff", false, true), "\u{fffd}\u{fffd}...");
    }

    #[test]
    fn a_title_replaces_the_arguments() {
        assert_eq!(join(b"sshd: root@pts/0\0junk", true, false), "sshd: root@pts/0");
        assert_eq!(join(b"nginx: worker process\0\0\0\0", false, false), "nginx: worker process");
    }

    #[test]
    fn invalid_utf8_becomes_replacement_characters() {
        assert_eq!(join(b"x\0\xff\xfe\0", false, false), "\u{fffd}\u{fffd}");
    }
}
