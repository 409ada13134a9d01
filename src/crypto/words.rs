//! The master key as 24 words for paper (BIP-39, English list): 256 bits and 8 of a checksum.
//!
//! No message here says what a word was: even a wrong one may be most of a right one.

use bip39::{Language, Mnemonic};
use zeroize::{Zeroize, Zeroizing};

use super::MasterKey;
use crate::id::RepositoryId;

/// Words of a master key.
pub const WORDS: usize = 24;

/// What begins a line of recovery words that also names its repository.
const MARK: &str = "snap-recovery";

/// Why a text is no master key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    #[error("There are {0} recovery words and not {WORDS}")]
    Count(usize),
    /// Counted from 1.
    #[error("Recovery word {0} is not in the list of words; is it spelt right?")]
    Unknown(usize),
    #[error("The recovery words do not fit together: one is wrong, or two have changed places")]
    Checksum,
}

/// What recovery words say.
pub struct Recovery {
    pub master: MasterKey,
    /// The repository they are for, where the text names it.
    pub repository: Option<RepositoryId>,
}

impl MasterKey {
    /// The words of this key, with a space between.
    pub fn words(&self) -> Zeroizing<String> {
        let mut mnemonic = Mnemonic::from_entropy(self.bytes()).expect("32 bytes make 24 words");
        // Long enough never to grow, so that no copy is left behind.
        let mut text = Zeroizing::new(String::with_capacity(WORDS * 9));
        for word in mnemonic.words() {
            if !text.is_empty() {
                text.push(' ');
            }
            text.push_str(word);
        }
        mnemonic.zeroize();
        text
    }

    /// One line with everything that recovery needs, in capitals, as QR codes like it.
    pub fn recovery_line(&self, repository: RepositoryId) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(64 + WORDS * 9));
        line.push_str(MARK);
        line.push(' ');
        line.push_str(&repository.hex());
        line.push(' ');
        line.push_str(&self.words());
        line.make_ascii_uppercase();
        line
    }
}

impl Recovery {
    /// Reads words as they stand on a sheet or come out of its QR code: numbers between them are passed over, capitals do not matter.
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        let mut words = Zeroizing::new(String::with_capacity(text.len() + WORDS));
        let mut repository = None;
        let mut count = 0;
        let mut unknown = None;
        for part in text.split_whitespace() {
            let part = Zeroizing::new(part.to_ascii_lowercase());
            let is_number = part.trim_end_matches(['.', ')', ':']).bytes().all(|byte| byte.is_ascii_digit());
            if let Ok(id) = part.parse() {
                repository = Some(id);
            } else if !is_number && *part != MARK {
                count += 1;
                if !is_word(&part) {
                    unknown.get_or_insert(count);
                }
                words.push_str(&part);
                words.push(' ');
            }
        }
        if let Some(place) = unknown {
            return Err(WordsError::Unknown(place));
        }
        if count != WORDS {
            return Err(WordsError::Count(count));
        }
        let mut mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|_| WordsError::Checksum)?;
        let (mut bytes, _) = mnemonic.to_entropy_array();
        let master = MasterKey::new(bytes[..32].try_into().expect("24 words are 32 bytes"));
        bytes.zeroize();
        mnemonic.zeroize();
        Ok(Self { master, repository })
    }
}

/// Whether a lower-case word is in the list.
pub fn is_word(word: &str) -> bool {
    Language::English.find_word(word).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> MasterKey {
        MasterKey::new(*blake3::hash(&[seed]).as_bytes())
    }

    fn parse(text: &str) -> Result<[u8; 32], WordsError> {
        Recovery::parse(text).map(|recovery| *recovery.master.bytes())
    }

    /// From the reference vectors of BIP-39.
    #[test]
    fn known_answers() {
        let check = |bytes: [u8; 32], words: &str| {
            assert_eq!(*MasterKey::new(bytes).words(), words);
            assert_eq!(parse(words).unwrap(), bytes);
        };
        check([0; 32], &format!("{}art", "abandon ".repeat(23)));
        check([0xff; 32], &format!("{}vote", "zoo ".repeat(23)));
        let letter = "letter advice cage absurd amount doctor acoustic avoid ".repeat(3);
        check([0x80; 32], letter.trim_end().strip_suffix("avoid").map(|words| format!("{words}bless")).unwrap().as_str());
    }

    #[test]
    fn words_come_back_however_they_are_written() {
        for seed in 0..50 {
            let key = key(seed);
            let words = key.words();
            let list: Vec<&str> = words.split(' ').collect();
            let sheet: String = list.iter().enumerate().map(|(i, word)| format!("{:>2}. {word}\n", i + 1)).collect();
            for text in [words.as_str(), &words.to_uppercase(), &sheet, &format!("  {}\r\n", list.join("\t"))] {
                assert_eq!(parse(text).unwrap(), *key.bytes());
            }
            let repository = RepositoryId([seed; 16]);
            let line = key.recovery_line(repository);
            assert!(line.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" -".contains(&byte)));
            let recovery = Recovery::parse(&line).unwrap();
            assert_eq!((recovery.master.bytes(), recovery.repository), (key.bytes(), Some(repository)));
        }
    }

    /// All digits, so that it looks like a number.
    #[test]
    fn an_id_is_not_taken_for_a_number() {
        let repository = RepositoryId([0x11; 16]);
        assert_eq!(Recovery::parse(&key(1).recovery_line(repository)).unwrap().repository, Some(repository));
    }

    #[test]
    fn wrong_words_are_told_without_saying_them() {
        let words = key(3).words();
        let list: Vec<&str> = words.split(' ').collect();
        let mut wrong = list.clone();
        wrong[6] = "abandom";
        assert_eq!(parse(&wrong.join(" ")), Err(WordsError::Unknown(7)));
        assert!(!WordsError::Unknown(7).to_string().contains("abandom"));
        assert_eq!(parse(&list[..23].join(" ")), Err(WordsError::Count(23)));
        assert_eq!(parse(&[&list[..], &["zoo"]].concat().join(" ")), Err(WordsError::Count(25)));
        assert_eq!(parse(""), Err(WordsError::Count(0)));
        // A checksum of eight bits lets one in 256 pass: what it opens decides then.
        let (mut passed, mut trials) = (0, 0);
        for i in 0..WORDS {
            for j in (i + 1)..WORDS {
                let mut swapped = list.clone();
                swapped.swap(i, j);
                if swapped != list {
                    trials += 1;
                    match parse(&swapped.join(" ")) {
                        Ok(bytes) => {
                            assert_ne!(bytes, *key(3).bytes());
                            passed += 1;
                        }
                        Err(error) => assert_eq!(error, WordsError::Checksum),
                    }
                }
            }
        }
        assert!(trials > 200 && passed * 32 < trials, "{passed} of {trials}");
    }
}
