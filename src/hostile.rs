//! Control and invisible characters, which untrusted text must not send to a terminal.

/// Whether a character controls the terminal, changes the text direction, or is invisible.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Replaces each such character with one other, so that columns stay aligned.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            c if is_hostile(c) => '\u{FFFD}',
            c => c,
        })
        .collect()
}

/// Makes a message of untrusted text printable on one line of bounded length.
pub fn one_line(message: &str) -> String {
    const LENGTH_MAX: usize = 300;
    let mut chars = message.chars();
    let message = printable(&chars.by_ref().take(LENGTH_MAX).collect::<String>());
    if chars.next().is_some() { message + "..." } else { message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_short() {
        assert_eq!(one_line("a\nb"), "a b");
        assert_eq!(one_line(&"é".repeat(300)), "é".repeat(300));
        assert_eq!(one_line(&"é".repeat(301)), "é".repeat(300) + "...");
    }

    #[test]
    fn each_character_is_replaced_by_one() {
        assert_eq!(printable("a\tb\x1b[31m\u{202e}\u{61c}名é"), "a b\u{fffd}[31m\u{fffd}\u{fffd}名é");
    }
}
