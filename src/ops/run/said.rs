//! What a command says: passed on line by line, its end kept for the report, and secrets blotted out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::error::show_bytes;
use crate::limits::*;
use crate::source::Sink;

/// Longest line that is waited for.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Shorter values stand in too many words that are no secrets.
const SECRET_BYTES_MIN: usize = 4;
const BLOT: &[u8] = b"***";

/// What a command says.
pub struct Said {
    /// Of its stream or step.
    pub name: String,
    state: Mutex<State>,
}

struct State {
    next: Sink,
    secrets: Vec<Zeroizing<Vec<u8>>>,
    tail: Vec<u8>,
}

impl Said {
    pub fn new(name: &str, next: Sink) -> Self {
        Self { name: name.into(), state: Mutex::new(State { next, secrets: Vec::new(), tail: Vec::new() }) }
    }

    /// Blots out this value from now on, and each line of it, since that is how it would be said.
    pub fn hide(&self, secret: &[u8]) {
        let mut state = self.lock();
        let lines = secret.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let parts = lines.filter(|line| line.len() >= SECRET_BYTES_MIN).map(|line| Zeroizing::new(line.to_vec()));
        state.secrets.extend(parts);
        // One that is part of another would leave the rest of that.
        state.secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Where a command is to say it; of several that speak at once, each its own lines.
    pub fn sink(self: &Arc<Self>) -> Sink {
        let mut lines = Lines { said: self.clone(), line: Vec::new() };
        Box::new(move |bytes| lines.take(bytes))
    }

    /// The end of what was said so far.
    pub fn tail(&self) -> String {
        let text: Vec<String> = self.lock().tail.split(|byte| *byte == b'\n').map(show_bytes).collect();
        text.join("\n").trim_end().to_owned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one command says, line by line.
struct Lines {
    said: Arc<Said>,
    /// A line that has not ended.
    line: Vec<u8>,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end..];
            if self.line.ends_with(b"\n") || self.line.len() >= LINE_BYTES_MAX {
                self.said.lock().pass(std::mem::take(&mut self.line));
            }
        }
    }
}

impl State {
    fn pass(&mut self, mut line: Vec<u8>) {
        for secret in &self.secrets {
            while let Some(at) = line.windows(secret.len()).position(|part| part == &secret[..]) {
                line.splice(at..at + secret.len(), BLOT.iter().copied());
            }
        }
        (self.next)(&line);
        self.tail.extend_from_slice(&line);
        self.tail.drain(..self.tail.len().saturating_sub(STDERR_TAIL_BYTES));
    }
}

impl Drop for Lines {
    /// Passes on what is left when the command's output ends.
    fn drop(&mut self) {
        self.said.lock().pass(std::mem::take(&mut self.line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_passed_on_without_secrets() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let to = heard.clone();
        let said = Arc::new(Said::new("x", Box::new(move |bytes: &[u8]| to.lock().unwrap().extend_from_slice(bytes))));
        said.hide(b"hunter2");
        said.hide(b"ab");
        let mut sink = said.sink();
        for piece in ["password hun", "ter2, hunter2\nab\n", "no end hunt", "er2"] {
            sink(piece.as_bytes());
        }
        assert_eq!(said.tail(), "password ***, ***\nab");
        drop(sink);
        assert_eq!(said.tail(), "password ***, ***\nab\nno end ***");
        assert_eq!(*heard.lock().unwrap(), b"password ***, ***\nab\nno end ***");
    }

    #[test]
    fn secrets_of_several_lines_and_parts_of_each_other_are_blotted_out() {
        let said = Arc::new(Said::new("x", Box::new(|_| {})));
        said.hide(b"hunter2");
        said.hide(b"hunter22");
        said.hide(b"-----BEGIN KEY-----\r\nMIIEvQIB\n}\n  abcd\n");
        said.sink()(b"hunter22\n-----BEGIN KEY-----\r\nMIIEvQIB\n}\n  abcd\n");
        assert_eq!(said.tail().replace("\\r", ""), "***\n***\n***\n}\n  ***");
    }

    #[test]
    fn only_the_end_is_kept() {
        let said = Arc::new(Said::new("x", Box::new(|_| {})));
        let mut sink = said.sink();
        (0..5000).for_each(|line| sink(format!("line {line}\n").as_bytes()));
        assert!(said.tail().len() <= STDERR_TAIL_BYTES && said.tail().ends_with("line 4999"));
    }
}
