//! What a command says on its standard error that sounds like trouble, although it ends with success.

use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::*;
use crate::source::Sink;

/// Listens to a command.
#[derive(Clone, Default)]
pub struct Overheard(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    /// Those that speak of an error.
    lines: Vec<String>,
    /// What came of the line that is not over yet.
    line: Vec<u8>,
}

impl Overheard {
    /// The same sink, listened to.
    pub fn listen(&self, mut sink: Sink) -> Sink {
        let heard = self.0.clone();
        Box::new(move |bytes: &[u8]| {
            sink(bytes);
            let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
            bytes.split_inclusive(|byte| *byte == b'\n').for_each(|part| heard.take(part));
        })
    }

    /// The first lines that speak of an error.
    pub fn lines(&self) -> Vec<String> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.end_line();
        heard.lines.clone()
    }
}

impl Heard {
    fn take(&mut self, part: &[u8]) {
        let room = OVERHEARD_LINE_BYTES.saturating_sub(self.line.len());
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        if part.ends_with(b"\n") {
            self.end_line();
        }
    }

    fn end_line(&mut self) {
        if self.lines.len() < OVERHEARD_LINES_MAX && is_trouble(&self.line) {
            self.lines.push(String::from_utf8_lossy(self.line.trim_ascii()).into_owned());
        }
        self.line.clear();
    }
}

/// Whether one of its words is `error` or `fatal`.
fn is_trouble(line: &[u8]) -> bool {
    let mut words = line.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    words.any(|word| word.eq_ignore_ascii_case(b"error") || word.eq_ignore_ascii_case(b"fatal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_speak_of_errors_are_kept() {
        let said = "pg_dump: reading schemas\npg_dump: error: query failed\nFATAL:  the server is gone\n0 errors\nlog_error=x\n\
                    mysqldump: Got error: 2013";
        for size in [1, 7, 1000] {
            let (overheard, passed) = (Overheard::default(), Arc::new(Mutex::new(Vec::new())));
            let copy = passed.clone();
            let mut sink = overheard.listen(Box::new(move |bytes: &[u8]| copy.lock().unwrap().extend_from_slice(bytes)));
            said.as_bytes().chunks(size).for_each(&mut sink);
            let expected = ["pg_dump: error: query failed", "FATAL:  the server is gone", "mysqldump: Got error: 2013"];
            assert_eq!(overheard.lines(), expected, "in pieces of {size}");
            assert_eq!(*passed.lock().unwrap(), said.as_bytes());
        }
    }

    #[test]
    fn there_is_an_end_to_it() {
        let overheard = Overheard::default();
        let mut sink = overheard.listen(Box::new(|_| {}));
        (0..100).for_each(|_| sink(&[&b"error "[..], &[b'x'; 100_000], b"\n"].concat()));
        assert_eq!(overheard.lines().len(), OVERHEARD_LINES_MAX);
        assert!(overheard.lines().iter().all(|line| line.len() == OVERHEARD_LINE_BYTES));
    }
}
