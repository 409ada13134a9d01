//! Recovery words: from a file, or asked for one by one.

use std::path::Path;

use zeroize::Zeroizing;

use super::{ask, keyfile, output};
use crate::crypto::{Recovery, Secret, WORDS, WordsError, is_word};
use crate::error::{Error, Result};

/// Words in a file, which may be a whole line of a sheet's QR code.
pub fn read(path: &Path) -> Result<Secret> {
    let (mut bytes, _) = keyfile::read_secret(path)?;
    Ok(Secret::Words(std::mem::take(&mut *bytes)))
}

/// Asks for the words at the terminal. A word that is none is asked for again at once.
pub fn ask(location: &str) -> Result<Secret> {
    let hint = || "There is no terminal to ask for the recovery words at; use --recovery-words FILE".to_owned();
    let location = output::harmless(location);
    output::complain_as_is(&format!("The {WORDS} recovery words of {location}, one or several at a time; they are not shown.\n"));
    let mut words = Typed::default();
    while words.count < WORDS {
        let line = ask::once(&format!("Word {} of {WORDS}: ", words.count + 1), &hint)?;
        let line = Zeroizing::new(String::from_utf8_lossy(&line).into_owned());
        if let Err(place) = words.take(&line) {
            output::complain_as_is(&format!("Word {place} is not in the list of words. Again, from that word on.\n"));
        }
    }
    // Before anything is opened with them, so that a slip is told as what it is.
    Recovery::parse(&words.text).map_err(|error: WordsError| Error::WrongWords(error.to_string()))?;
    Ok(Secret::Words(words.text.as_bytes().to_vec()))
}

/// The words typed so far.
#[derive(Default)]
struct Typed {
    text: Zeroizing<String>,
    count: usize,
}

impl Typed {
    /// Takes the words of a line; of the first that is none, its place.
    fn take(&mut self, line: &str) -> std::result::Result<(), usize> {
        if self.text.is_empty() {
            // Room for all, so that no copy is left behind by growing.
            self.text.reserve(1 << 10);
        }
        for word in line.split_whitespace() {
            let word = Zeroizing::new(word.to_ascii_lowercase());
            if !is_word(&word) {
                return Err(self.count + 1);
            }
            self.text.push_str(&word);
            self.text.push(' ');
            self.count += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_up_to_the_first_that_is_none() {
        let mut typed = Typed::default();
        typed.take("Abandon  zoo").unwrap();
        typed.take("").unwrap();
        assert_eq!(typed.take("art nonsense vote"), Err(4));
        assert_eq!((typed.text.as_str(), typed.count), ("abandon zoo art ", 3));
        typed.take("vote").unwrap();
        assert_eq!(typed.count, 4);
    }
}
