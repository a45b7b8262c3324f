//! Domain name patterns: `example.com`, and `*.example.com` for every name below it.

/// Whether `pattern` matches `name`. Both are in lower case and without the final dot; the name is in the form of a
/// [`Binding`](crate::dns::Binding).
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix("*.") {
        None => name == pattern,
        Some(parent) => name.strip_suffix(parent).is_some_and(|below| below.len() > 1 && ends_a_label(below)),
    }
}

/// Whether the text ends in a dot between labels. `\.` is a dot inside a label, which must not be taken for a
/// separator.
fn ends_a_label(text: &str) -> bool {
    text.strip_suffix('.').is_some_and(|rest| {
        let backslashes = rest.bytes().rev().take_while(|&byte| byte == b'\\').count();
        backslashes % 2 == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domain_patterns() {
        for (pattern, name, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "www.example.com", false),
            ("example.com", "badexample.com", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.example.com", ".example.com", false),
            ("*.example.com", r"evil\.example.com", false),
            ("*.example.com", r"evil\\.example.com", true),
            ("*.com", "example.com", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
