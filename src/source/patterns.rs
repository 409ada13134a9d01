//! Path patterns like restic's, compiled.
//!
//! A pattern without `/` names one component anywhere; with `/` inside, a run of components anywhere; a leading `/` ties it
//! to the root, `**` spans folders, a trailing `/` takes folders only. A later pattern wins over an earlier one, and `!` in
//! front turns what it says around. `*`, `?`, `[…]` and `\` are as in a shell; braces mean themselves.
//!
//! Paths are raw bytes without a leading `/`: what an absolute path has behind its first slash. A pattern is matched against
//! a whole path; that a matched folder decides over what lies in it is up to the callers, who come down from the top.

use globset::{Candidate, GlobBuilder, GlobSet, GlobSetBuilder};

use crate::error::{Error, Result, show_bytes};

/// A list of patterns, of which the last that matches a path decides.
#[derive(Clone, Debug)]
pub(super) struct Patterns {
    globs: GlobSet,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug)]
struct Rule {
    is_negated: bool,
    for_folders: bool,
}

/// Whether upper and lower case differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    Exact,
    Ignored,
}

/// The place of the last pattern that matched a path or a folder above it.
pub(super) type LastMatch = Option<usize>;

impl Patterns {
    pub fn new(patterns: &[String]) -> Result<Self> {
        Self::with_case(patterns, Case::Exact)
    }

    fn with_case(patterns: &[String], case: Case) -> Result<Self> {
        let mut rules = Vec::new();
        let mut globs = Vec::new();
        for text in patterns {
            let pattern = Pattern::parse(text)?;
            let glob = pattern.glob(pattern.components.len());
            // Beyond ASCII globs tell cases apart, so both sides are put in lower case.
            globs.push(if case == Case::Ignored { glob.to_lowercase() } else { glob });
            rules.push(Rule { is_negated: pattern.is_negated, for_folders: pattern.for_folders });
        }
        Ok(Self { globs: compile(patterns.iter().zip(globs), case)?, rules })
    }

    /// What decides over `path`, when `above` decides over the folder it lies in.
    pub fn step(&self, above: LastMatch, path: &[u8], is_folder: bool) -> LastMatch {
        if self.rules.is_empty() {
            return above;
        }
        let mut matches = Vec::new();
        self.globs.matches_candidate_into(&Candidate::from_bytes(path), &mut matches);
        let fits = |place: &usize| is_folder || !self.rules[*place].for_folders;
        matches.into_iter().filter(fits).max().max(above)
    }

    /// Whether the deciding pattern says yes.
    pub fn is_yes(&self, last: LastMatch) -> bool {
        last.is_some_and(|place| !self.rules[place].is_negated)
    }
}

/// The folders above `path`, from the top, and `path` itself.
pub(super) fn steps(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(place, _)| place);
    ends.chain([path.len()]).map(|end| &path[..end])
}

/// What a restore takes: paths that match, and all that lies in matching folders.
#[derive(Clone, Debug)]
pub struct Includes {
    patterns: Patterns,
    /// Matches folders that may hold matching paths, for tied patterns.
    above: GlobSet,
    /// A pattern is not tied to the root.
    is_anywhere: bool,
}

impl Includes {
    /// Compiles the patterns, or says which is wrong.
    pub fn new(patterns: &[String]) -> Result<Self> {
        let mut above = Vec::new();
        let mut is_anywhere = false;
        for text in patterns {
            let pattern = Pattern::parse(text)?;
            is_anywhere |= !pattern.is_tied && !pattern.is_negated;
            if pattern.is_tied && !pattern.is_negated {
                above.extend((1..pattern.components.len()).map(|count| (text, pattern.glob(count))));
            }
        }
        Ok(Self { patterns: Patterns::new(patterns)?, above: compile(above.into_iter(), Case::Exact)?, is_anywhere })
    }

    /// Whether `path`, as it stands in a catalog, is taken.
    pub fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        let step = |above, part: &[u8]| self.patterns.step(above, part, is_folder || part.len() < path.len());
        self.patterns.is_yes(steps(path).fold(None, step))
    }

    /// Whether something in `folder` may be taken.
    pub fn may_contain(&self, folder: &[u8]) -> bool {
        self.is_anywhere || folder.is_empty() || self.above.is_match_candidate(&Candidate::from_bytes(folder)) || self.matches(folder, true)
    }
}

/// What a search looks for: paths that match themselves. What lies in a matching folder does not match because of that.
#[derive(Clone, Debug)]
pub struct Names {
    patterns: Patterns,
    case: Case,
}

impl Names {
    /// Compiles the patterns, or says which is wrong.
    pub fn new(patterns: &[String], case: Case) -> Result<Self> {
        Ok(Self { patterns: Patterns::with_case(patterns, case)?, case })
    }

    /// Whether `path`, as it stands in a catalog, is looked for.
    pub fn matches(&self, path: &[u8], is_folder: bool) -> bool {
        let text = std::str::from_utf8(path).ok().filter(|_| self.case == Case::Ignored);
        let folded = text.map(str::to_lowercase);
        let path = folded.as_deref().map_or(path, str::as_bytes);
        self.patterns.is_yes(self.patterns.step(None, path, is_folder))
    }
}

/// The patterns in a file: one a line, without blank lines and `#` comments.
pub fn parse_exclude_file(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// A pattern taken apart.
struct Pattern<'a> {
    is_negated: bool,
    for_folders: bool,
    is_tied: bool,
    components: Vec<&'a str>,
}

impl<'a> Pattern<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let (is_negated, rest) = match text.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let components: Vec<_> = rest.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if components.is_empty() {
            return Err(invalid(text, "it names nothing"));
        }
        if components.contains(&"..") {
            return Err(invalid(text, "\"..\" never matches"));
        }
        Ok(Self { is_negated, for_folders: rest.ends_with('/'), is_tied: rest.starts_with('/'), components })
    }

    /// The glob for the first `count` components; with `**` cut off behind it, for all that is below too.
    fn glob(&self, count: usize) -> String {
        let anywhere = if self.is_tied { "" } else { "**/" };
        format!("{anywhere}{}", escape_braces(&self.components[..count].join("/")))
    }
}

/// Braces are alternatives to globset but plain letters in a shell's patterns without expansion.
fn escape_braces(glob: &str) -> String {
    let mut escaped = String::with_capacity(glob.len());
    let mut is_after_backslash = false;
    for c in glob.chars() {
        if matches!(c, '{' | '}') && !is_after_backslash {
            escaped.push('\\');
        }
        is_after_backslash = c == '\\' && !is_after_backslash;
        escaped.push(c);
    }
    escaped
}

/// Compiles globs, each with the pattern to name if it is wrong.
fn compile<'a>(globs: impl Iterator<Item = (&'a String, String)>, case: Case) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for (text, glob) in globs {
        let glob = GlobBuilder::new(&glob).literal_separator(true).backslash_escape(true).case_insensitive(case == Case::Ignored).build();
        set.add(glob.map_err(|error| invalid(text, error.kind()))?);
    }
    set.build().map_err(|error| invalid(error.glob().unwrap_or("patterns"), error.kind()))
}

fn invalid(pattern: &str, why: impl std::fmt::Display) -> Error {
    Error::Usage(format!("Invalid pattern \"{}\": {why}", show_bytes(pattern.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn strings(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| pattern.to_string()).collect()
    }

    #[test]
    fn includes_take_what_matches_and_what_lies_in_it() {
        let includes = Includes::new(&strings(&["/home/*/docs", "!*.bak", "/var/**/log/x"])).unwrap();
        for (path, taken, looked_into) in [
            ("", false, true),
            ("home", false, true),
            ("home/ann", false, true),
            ("home/ann/docs", true, true),
            ("home/ann/docs/a/b", true, true),
            ("home/ann/docs/a.bak", false, false),
            ("home/ann/other", false, false),
            ("home2", false, false),
            ("var", false, true),
            ("var/a", false, true),
            ("var/a/b/log/x", true, true),
            ("var/log/x", true, true),
            ("etc", false, false),
        ] {
            assert_eq!(includes.matches(path.as_bytes(), false), taken, "{path}");
            assert_eq!(includes.may_contain(path.as_bytes()), looked_into, "{path}");
        }
        let anywhere = Includes::new(&strings(&["docs/"])).unwrap();
        assert!(anywhere.may_contain(b"any/folder"));
        assert!(anywhere.matches(b"a/docs/b", false) && anywhere.matches(b"a/docs", true) && !anywhere.matches(b"a/docs", false));
    }

    #[test]
    fn names_match_themselves_only() {
        let check = |patterns: &[&str], case, path: &str, is_folder, expected| {
            let names = Names::new(&strings(patterns), case).unwrap();
            assert_eq!(names.matches(path.as_bytes(), is_folder), expected, "{patterns:?} {path}");
        };
        for (path, is_folder, expected) in
            [("etc", true, true), ("etc/fstab", false, false), ("a/etc", true, true), ("etc", false, false), ("Etc", true, false)]
        {
            check(&["etc/"], Case::Exact, path, is_folder, expected);
        }
        check(&["*.SQL"], Case::Ignored, "dumps/Db.sql", false, true);
        check(&["/dumps/*.sql"], Case::Exact, "old/dumps/a.sql", false, false);
        check(&["*.sql", "!b.sql"], Case::Exact, "b.sql", false, false);
        check(&["ÄB"], Case::Ignored, "äb", false, true);
    }

    #[test]
    fn wrong_patterns_are_named() {
        for pattern in ["[a", "", "/", "!", "a/../b", "a\\"] {
            let message = Includes::new(&strings(&["fine", pattern])).unwrap_err().to_string();
            assert!(message.starts_with(&format!("Invalid pattern \"{}\"", show_bytes(pattern.as_bytes()))), "{message}");
        }
    }

    #[test]
    fn exclude_files_have_comments_and_blank_lines() {
        assert_eq!(parse_exclude_file("# all\n*.o\r\n\n  \n /tmp \n\\#x\n"), ["*.o", "/tmp", "\\#x"]);
    }
}
