//! Splits a command into words, as a shell would, but for everything else a shell does: no variables, no wildcards, no pipes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::output;

/// The words of a command, or why it has none.
///
/// Single quotes keep everything; in double quotes a backslash keeps `"`, `\`, `$` and `` ` ``; outside it keeps anything.
pub fn split(text: &OsStr) -> Result<Vec<OsString>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut bytes = text.as_bytes().iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => words.extend(word.take()),
            b'\\' => word.get_or_insert_default().push(bytes.next().ok_or("it ends with a backslash")?),
            b'\'' => single_quoted(&mut bytes, word.get_or_insert_default())?,
            b'"' => double_quoted(&mut bytes, word.get_or_insert_default())?,
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    match words.is_empty() {
        true => Err("it is empty"),
        false => Ok(words.into_iter().map(OsString::from_vec).collect()),
    }
}

const OPEN_QUOTE: &str = "a quote in it is not closed";

fn single_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), &'static str> {
    loop {
        match bytes.next().ok_or(OPEN_QUOTE)? {
            b'\'' => return Ok(()),
            byte => word.push(byte),
        }
    }
}

fn double_quoted(bytes: &mut impl Iterator<Item = u8>, word: &mut Vec<u8>) -> Result<(), &'static str> {
    loop {
        match bytes.next().ok_or(OPEN_QUOTE)? {
            b'"' => return Ok(()),
            b'\\' => match bytes.next().ok_or(OPEN_QUOTE)? {
                byte @ (b'"' | b'\\' | b'$' | b'`') => word.push(byte),
                byte => word.extend([b'\\', byte]),
            },
            byte => word.push(byte),
        }
    }
}

/// A word as it can be pasted into a shell.
pub fn quote(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let shown = output::harmless(&text);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,@%+".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => shown,
        false if shown == text => format!("'{}'", text.replace('\'', "'\\''")),
        // With line ends and the like in it.
        false => format!("$'{}'", output::harmless(&text.replace('\\', "\\\\").replace('\'', "\\'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_in_a_shell() {
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(split(text.as_ref()).unwrap(), expected, "{text}");
        };
        check("pass show backup", &["pass", "show", "backup"]);
        check("  a\t'b c'  d\\ e ", &["a", "b c", "d e"]);
        check(r#"a "b \"c\" \d $x" '\' ''"#, &["a", r#"b "c" \d $x"#, r"\", ""]);
        check("a'b'\"c\"d", &["abcd"]);
        check("cat /x | grep y", &["cat", "/x", "|", "grep", "y"]);
        for (word, shown) in [("a-b=c", "a-b=c"), ("", "''"), ("it's", "'it'\\''s'"), ("a\nb'\\", r"$'a\nb\'\\'"), ("$x", "'$x'")] {
            assert_eq!(quote(word.as_ref()), shown);
        }
        for wrong in ["", "  ", "a 'b", "a \"b", "a \"b\\", "a\\"] {
            assert!(split(wrong.as_ref()).is_err(), "{wrong}");
        }
    }
}
