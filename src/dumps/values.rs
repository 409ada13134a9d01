//! Rows in the `INSERT` statements of `mysqldump`: counted between the words `VALUES` and the semicolon.
//!
//! A row begins with a parenthesis outside of strings, and there are no others. Strings are in single quotes; a quote in one is doubled
//! or behind a backslash, and newlines are escaped. Most rows have no backslash: of these it is enough to know how many quotes come
//! before a closing parenthesis, which takes no step for each byte.

use memchr::{memchr, memchr_iter, memchr2};

/// Where in the data of a table the bytes stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// The beginning of a line, of which so many bytes are known.
    LineStart(usize),
    /// A line that holds no rows.
    Line,
    /// In front of `VALUES`, of which so many letters were seen.
    Head(usize),
    /// In a name in front of it.
    Name,
    /// Between rows.
    Between,
    /// At the beginning of a row.
    Row,
    /// In a row of which every string is looked at.
    Slow,
    Text,
    /// Behind a backslash in a string.
    Escaped,
}

/// What stands in front of `VALUES`, at the beginning of a line.
const STATEMENTS: [&[u8]; 2] = [b"INSERT ", b"REPLACE "];
const VALUES: &[u8] = b"VALUES";
const START_MAX: usize = 8;

/// Counts the rows of one table.
pub struct Rows {
    at: At,
    start: [u8; START_MAX],
    pub count: u64,
}

impl Rows {
    /// Begins behind a line's end.
    pub fn new() -> Self {
        Self { at: At::LineStart(0), start: [0; START_MAX], count: 0 }
    }

    pub fn feed(&mut self, mut bytes: &[u8]) {
        let input = &mut bytes;
        while !input.is_empty() {
            match self.at {
                At::LineStart(known) => {
                    let byte = input[0];
                    self.start[known] = byte;
                    let start = &self.start[..=known];
                    self.at = if STATEMENTS.contains(&start) {
                        At::Head(0)
                    } else if byte == b'\n' {
                        At::LineStart(0)
                    } else if STATEMENTS.iter().any(|statement| statement.starts_with(start)) {
                        At::LineStart(known + 1)
                    } else {
                        At::Line
                    };
                    *input = &input[1..];
                }
                At::Line => self.jump(memchr(b'\n', input), input, |_| At::LineStart(0)),
                At::Head(seen) => {
                    let byte = input[0];
                    *input = &input[1..];
                    self.at = match byte {
                        b'`' => At::Name,
                        b'\n' => At::LineStart(0),
                        _ if byte == VALUES[seen] && seen + 1 == VALUES.len() => At::Between,
                        _ if byte == VALUES[seen] => At::Head(seen + 1),
                        _ => At::Head(usize::from(byte == VALUES[0])),
                    };
                }
                At::Name => self.jump(memchr(b'`', input), input, |_| At::Head(0)),
                At::Between => {
                    let found = memchr2(b'(', b';', input);
                    self.count += u64::from(found.is_some_and(|at| input[at] == b'('));
                    self.jump(found, input, |byte| if byte == b'(' { At::Row } else { At::Line });
                }
                At::Row => self.row(input),
                At::Slow => self.jump(memchr2(b'\'', b')', input), input, |byte| if byte == b'\'' { At::Text } else { At::Between }),
                At::Text => self.jump(memchr2(b'\'', b'\\', input), input, |byte| if byte == b'\'' { At::Slow } else { At::Escaped }),
                At::Escaped => self.jump(Some(0), input, |_| At::Text),
            }
        }
    }

    /// Whether no statement has begun that has not ended.
    pub fn is_between_statements(&self) -> bool {
        matches!(self.at, At::LineStart(_) | At::Line)
    }

    /// Goes on behind the byte that was found, or to the end.
    fn jump(&mut self, found: Option<usize>, input: &mut &[u8], next: impl Fn(u8) -> At) {
        match found {
            None => *input = &[],
            Some(at) => {
                self.at = next(input[at]);
                *input = &input[at + 1..];
            }
        }
    }

    /// Jumps to a row's end where that is easily found.
    fn row(&mut self, input: &mut &[u8]) {
        let (mut from, mut quotes) = (0, 0);
        while let Some(len) = memchr(b')', &input[from..]) {
            let part = &input[from..from + len];
            if memchr(b'\\', part).is_some() {
                break;
            }
            quotes += memchr_iter(b'\'', part).count();
            from += len + 1;
            if quotes % 2 == 0 {
                self.at = At::Between;
                *input = &input[from..];
                return;
            }
        }
        // A backslash, or the end of the bytes at hand, comes before the row's end.
        self.at = At::Slow;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows, and whether all statements have ended, in pieces of that many bytes.
    fn count(text: &[u8], piece: usize) -> (u64, bool) {
        let mut rows = Rows::new();
        text.chunks(piece).for_each(|bytes| rows.feed(bytes));
        (rows.count, rows.is_between_statements())
    }

    #[test]
    fn rows_are_counted_wherever_the_bytes_are_cut() {
        for (text, expected) in [
            ("\nLOCK TABLES `t` WRITE;\nUNLOCK TABLES;\n-- ", (0, true)),
            ("INSERT INTO `t` VALUES (1,'a'),(2,NULL),(3,_binary 'b');\n-- ", (3, true)),
            ("INSERT INTO `t` VALUES\n(1,'a'),\n(2,'b');\nUNLOCK TABLES;\n", (2, true)),
            ("INSERT INTO `t` VALUES (1);\nINSERT INTO `t` VALUES (2);\nREPLACE INTO `t` VALUES (3);\n", (3, true)),
            ("INSERT  IGNORE INTO `t` (`a`, `VALUES (`, `b``)`) VALUES (1,2,3),(4,5,6);\n", (2, true)),
            // What looks like another row, or like the end of one.
            ("INSERT INTO `t` VALUES (1,'),('),(2,'it''s ),('),(3,''),(4,'();');\n-- ", (4, true)),
            (r"INSERT INTO `t` VALUES (1,'\'),('),(2,'\\'),(3,'\\\'),(;'),(4,'a\');');", (4, true)),
            ("INSERT INTO `VVALUES` VALUES (1);\nINSERT INTO VALVALUES (1),(2);\n", (3, true)),
            // No statement, but what begins like one.
            ("INSERTED (1)\nREPLACED (2)\n INSERT INTO `t` VALUES (1);\n/*!40000 INSERT INTO `t` VALUES (1) */;\n", (0, true)),
            // Cut short.
            ("INSERT INTO `t` VALUES (1,'a'),(2,'-- Dump", (2, false)),
            ("INSERT INTO `t` VALUES (1,'a'),", (1, false)),
        ] {
            for piece in (1..30).chain([1000]) {
                assert_eq!(count(text.as_bytes(), piece), expected, "{text} in pieces of {piece}");
            }
        }
    }
}
