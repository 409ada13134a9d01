//! The recovery sheet: a page for paper with the words of a repository's key, as text or as HTML.

use jiff::tz::TimeZone;
use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use super::output::harmless;
use crate::crypto::WORDS;
use crate::repo::Repository;

/// Light modules around a code, as the standard asks.
const QUIET: usize = 4;

/// What is on a sheet.
pub struct Sheet {
    repository: String,
    location: String,
    made: String,
    host: String,
    words: Zeroizing<String>,
    code: Code,
}

/// The dark modules of a QR code.
struct Code {
    width: usize,
    dark: Zeroizing<Vec<bool>>,
}

impl Sheet {
    pub fn new(repository: &Repository, host: &str) -> Self {
        let now = repository.world().now().to_zoned(TimeZone::system());
        Self {
            repository: repository.id().hex(),
            location: harmless(&repository.location()),
            made: now.strftime("%Y-%m-%d %H:%M %Z").to_string(),
            host: harmless(host),
            words: repository.master().words(),
            code: Code::of(&repository.master().recovery_line(repository.id())),
        }
    }

    /// Plain text of at most 80 columns.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(64 << 10));
        let words: Vec<&str> = self.words.split(' ').collect();
        text.push_str("RECOVERY SHEET OF A SNAP REPOSITORY\n\n");
        for (name, value) in self.facts() {
            text.push_str(&format!("  {name:<11} {value}\n"));
        }
        text.push_str("\nThe words, to be read across:\n\n");
        for (row, four) in words.chunks(4).enumerate() {
            for (column, word) in four.iter().enumerate() {
                text.push_str(&format!("  {:>2} {word:<10}", row * 4 + column + 1));
            }
            let len = text.trim_end().len();
            text.truncate(len);
            text.push('\n');
        }
        text.push('\n');
        for paragraph in self.paragraphs() {
            text.push_str(&fill(&paragraph, 78));
            text.push('\n');
        }
        text.push_str(&self.code.text());
        text
    }

    /// A page that needs nothing else and prints on one sheet.
    pub fn html(&self) -> Zeroizing<String> {
        let mut page = Zeroizing::new(String::with_capacity(64 << 10));
        page.push_str(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Recovery sheet of a snap repository</title>\n",
        );
        page.push_str(STYLE);
        page.push_str("</head>\n<body>\n<h1>Recovery sheet of a snap repository</h1>\n<table class=\"facts\">\n");
        for (name, value) in self.facts() {
            page.push_str(&format!("<tr><th>{name}</th><td>{}</td></tr>\n", escape(value)));
        }
        page.push_str("</table>\n<ol>\n");
        for word in self.words.split(' ') {
            page.push_str("<li>");
            page.push_str(word);
            page.push_str("</li>\n");
        }
        page.push_str("</ol>\n<div class=\"foot\">\n");
        page.push_str(&self.code.svg());
        page.push_str("<div>\n");
        for paragraph in self.paragraphs() {
            page.push_str(&format!("<p>{}</p>\n", escape(&paragraph)));
        }
        page.push_str("</div>\n</div>\n</body>\n</html>\n");
        page
    }

    fn facts(&self) -> [(&'static str, &str); 4] {
        [("Repository", &self.repository), ("Location", &self.location), ("On host", &self.host), ("Printed", &self.made)]
    }

    fn paragraphs(&self) -> [String; 4] {
        [
            format!(
                "These {WORDS} words are the master key of the repository. Whoever has them, and the repository, can read and change \
                 all that is in it and all that ever will be. No password is needed, and no change of passwords takes that back: \
                 only a copy under a new key does (snap rekey). Keep this sheet where you would keep the data itself, printed \
                 on paper, and remove the file."
            ),
            "To get back in when all passwords and key files are lost: snap key recover -r REPOSITORY asks for the words and for a new \
             password."
                .into(),
            "To restore without changing anything: type the words into a file, or scan the code into one, and say snap restore \
             -r REPOSITORY --recovery-words FILE latest -t FOLDER. Order matters; numbers between the words and capitals do not."
                .into(),
            "The words follow BIP-39 (English list, 256 bits); the last one holds a checksum. They are no wallet.".into(),
        ]
    }
}

impl Code {
    fn of(line: &str) -> Self {
        let code = QrCode::with_error_correction_level(line, EcLevel::M).expect("a line of words is far below what a code can hold");
        let dark = code.to_colors().iter().map(|color| *color == Color::Dark).collect();
        Self { width: code.width(), dark: Zeroizing::new(dark) }
    }

    /// Also for places around the code.
    fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < self.width);
        inside(x).zip(inside(y)).is_some_and(|(x, y)| self.dark[y * self.width + x])
    }

    /// Two modules a character. Light ones are filled, since text is light on dark where it is read from a screen most of the time; scanners
    /// take either.
    fn text(&self) -> Zeroizing<String> {
        let side = self.width + 2 * QUIET;
        let mut text = Zeroizing::new(String::with_capacity(side * side * 2));
        for y in (0..side).step_by(2) {
            for x in 0..side {
                text.push(match (self.is_dark(x, y), y + 1 >= side || self.is_dark(x, y + 1)) {
                    (false, false) => '█',
                    (false, true) => '▀',
                    (true, false) => '▄',
                    (true, true) => ' ',
                });
            }
            text.push('\n');
        }
        text
    }

    fn svg(&self) -> Zeroizing<String> {
        let side = self.width + 2 * QUIET;
        let mut svg = Zeroizing::new(String::with_capacity(side * side * 16));
        svg.push_str(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\n\
             <rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/>\n<path fill=\"#000\" d=\""
        ));
        for y in 0..side {
            for x in (0..side).filter(|x| self.is_dark(*x, y)) {
                svg.push_str(&format!("M{x} {y}h1v1h-1z"));
            }
        }
        svg.push_str("\"/>\n</svg>\n");
        svg
    }
}

const STYLE: &str = "<style>
@page { margin: 15mm; }
body { font: 11pt/1.4 sans-serif; color: #000; background: #fff; max-width: 180mm; margin: 0 auto; }
h1 { font-size: 16pt; }
.facts th { text-align: left; padding-right: 1em; font-weight: normal; color: #444; }
.facts td { font-family: monospace; overflow-wrap: anywhere; }
ol { columns: 3; font: 13pt/1.7 monospace; padding-left: 3em; }
.foot { display: flex; gap: 8mm; align-items: flex-start; break-inside: avoid; }
.foot svg { width: 62mm; flex: none; }
.foot p { margin: 0 0 .7em; font-size: 9.5pt; }
</style>
";

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A paragraph in lines of at most `width` columns.
fn fill(text: &str, width: usize) -> String {
    let mut filled = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > width {
            filled.push('\n');
            column = 0;
        }
        if column > 0 {
            filled.push(' ');
            column += 1;
        }
        filled.push_str(word);
        column += len;
    }
    filled.push('\n');
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "SNAP-RECOVERY 00112233445566778899AABBCCDDEEFF ABANDON ZOO ART";

    fn sheet() -> Sheet {
        Sheet {
            repository: "00".repeat(16),
            location: "/srv/<backup>".into(),
            made: "2026-11-21 02:00 UTC".into(),
            host: "db1".into(),
            words: Zeroizing::new(format!("{}art", "abandon ".repeat(23))),
            code: Code::of(LINE),
        }
    }

    /// What a scanner makes of a picture of so many modules a side.
    fn scan(side: usize, is_dark: impl Fn(usize, usize) -> bool) -> String {
        const SCALE: usize = 6;
        let pixel = |x: usize, y: usize| if is_dark(x / SCALE, y / SCALE) { 0 } else { 255 };
        let mut image = rqrr::PreparedImage::prepare_from_greyscale(side * SCALE, side * SCALE, pixel);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn codes_can_be_scanned() {
        let sheet = sheet();
        let svg = sheet.code.svg();
        let side: usize = svg.split("viewBox=\"0 0 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        assert_eq!(scan(side, |x, y| svg.contains(&format!("M{x} {y}h1v1h-1z"))), LINE);

        let text = sheet.text();
        let rows: Vec<Vec<char>> = text.lines().filter(|line| line.contains('█')).map(|line| line.chars().collect()).collect();
        let lit = |x: usize, y: usize| match (rows[y / 2][x], y % 2) {
            ('█', _) | ('▀', 0) | ('▄', 1) => true,
            (' ' | '▀' | '▄', _) => false,
            (other, _) => panic!("{other}"),
        };
        assert_eq!(scan(rows[0].len(), |x, y| y / 2 >= rows.len() || !lit(x, y)), LINE);
    }

    #[test]
    fn sheets_say_what_matters_and_need_nothing_else() {
        let (text, html) = (sheet().text(), sheet().html());
        for part in ["master key", "snap key recover", "snap rekey", "db1", "2026-11-21", &"00".repeat(16)] {
            assert!(text.replace('\n', " ").contains(part) && html.contains(part), "{part}");
        }
        assert!(text.contains("   1 abandon") && text.contains("  24 art\n"), "{}", *text);
        assert!(text.lines().all(|line| line.chars().count() <= 80));
        assert_eq!(html.matches("<li>").count(), 24);
        assert!(html.contains("/srv/&lt;backup&gt;") && !html.contains("src=") && !html.contains("href"));
    }

    #[test]
    fn paragraphs_are_filled() {
        assert_eq!(fill("a bb ccc dddd", 6), "a bb\nccc\ndddd\n");
        assert_eq!(fill("longer than it", 3), "longer\nthan\nit\n");
    }
}
