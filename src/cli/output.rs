//! Standard output and standard error, without panics when nobody reads them, and without control characters of others.

use std::io::{self, Write};

use crate::error::{Error, Result, show_bytes};

/// Prints a line, or lines, to standard output.
pub fn print(text: &str) -> Result<()> {
    write_all(format!("{text}\n").as_bytes())
}

/// Prints one JSON value on a line of its own.
pub fn print_json(value: &serde_json::Value) -> Result<()> {
    print(&value.to_string())
}

/// Prints bytes as they are to standard output.
pub fn write_all(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(closed)
}

/// What a failed write to standard output means.
pub fn closed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Error::file("write to", "standard output", error),
    }
}

/// Prints a message for people to standard error.
pub fn complain(message: &str) {
    complain_as_is(&format!("snap: {}\n", harmless(message)));
}

/// Prints text to standard error; there is nobody to tell if that fails.
pub fn complain_as_is(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Text with its control and direction-changing characters escaped, line ends and tabs too.
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    text.chars().for_each(|c| push_harmless(&mut safe, c));
    safe
}

/// Without the number that the standard library adds to the system's errors, which helps nobody.
pub fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        kept.push_str(part.split_once(')').map_or("", |(_, rest)| rest));
    }
    kept
}

fn push_harmless(text: &mut String, c: char) {
    match c {
        ' '..='~' => text.push(c),
        c => text.push_str(&show_bytes(c.encode_utf8(&mut [0; 4]).as_bytes())),
    }
}

/// Makes the standard error of a command, which comes in pieces, harmless for a terminal.
#[derive(Default)]
pub struct Cleaner {
    /// The beginning of a character whose rest has not come yet.
    unfinished: Vec<u8>,
}

impl Cleaner {
    /// The next piece, with line ends and tabs kept.
    pub fn clean(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.unfinished);
        bytes.extend_from_slice(piece);
        self.unfinished = bytes.split_off(bytes.len() - cut_character(&bytes));
        let mut text = String::with_capacity(bytes.len());
        for part in bytes.utf8_chunks() {
            for c in part.valid().chars() {
                match c {
                    '\n' | '\t' => text.push(c),
                    // A line that is written over itself becomes many lines.
                    '\r' => text.push('\n'),
                    c => push_harmless(&mut text, c),
                }
            }
            text.push_str(&show_bytes(part.invalid()));
        }
        text
    }
}

/// How many bytes at the end are the beginning of a character.
fn cut_character(bytes: &[u8]) -> usize {
    let is_beginning = |len: &usize| {
        let end = &bytes[bytes.len() - len..];
        std::str::from_utf8(end).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
    };
    (1..=bytes.len().min(3)).find(is_beginning).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_others_cannot_steer_a_terminal() {
        assert_eq!(harmless("a\\b \x1b[2J\n\u{202e}ä"), "a\\b \\u{1b}[2J\\n\\u{202e}ä");
    }

    #[test]
    fn standard_error_is_cleaned_in_pieces() {
        let mut cleaner = Cleaner::default();
        let pieces: [(&[u8], &str); 5] = [
            (b"10%\r20%\n\tx", "10%\n20%\n\tx"),
            (b"gr\xc3", "gr"),
            (b"\xbc\xc3\x9f e\xe2\x82", "üß e"),
            (b"\xac\x1b]0;x\x07", "€\\u{1b}]0;x\\u{7}"),
            (b"\xff\xfe.", "\\xff\\xfe."),
        ];
        for (piece, cleaned) in pieces {
            assert_eq!(cleaner.clean(piece), cleaned);
        }
    }
}
