//! What makes snapshots belong together: by default their host and name, and never their paths, in which a date may stand.

use std::fmt;
use std::str::FromStr;

/// What snapshots of one group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    pub host: bool,
    pub name: bool,
    pub tags: bool,
    pub paths: bool,
}

impl Default for GroupBy {
    fn default() -> Self {
        Self { host: true, name: true, tags: false, paths: false }
    }
}

impl FromStr for GroupBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut by = Self { host: false, name: false, tags: false, paths: false };
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "host" | "hosts" => by.host = true,
                "name" | "names" => by.name = true,
                "tag" | "tags" => by.tags = true,
                "path" | "paths" => by.paths = true,
                _ => return Err("write any of host, name, tags and paths with commas between, or \"\" for one group of all".into()),
            }
        }
        Ok(by)
    }
}

/// What the snapshots of one group have in common; nothing where it was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    pub host: Option<String>,
    pub name: Option<String>,
    pub tags: Option<Vec<String>>,
    pub paths: Option<Vec<String>>,
}

impl GroupBy {
    /// The group of a snapshot. Tags and paths go in any order.
    pub fn key(&self, host: &str, name: &str, tags: &[String], paths: &[String]) -> GroupKey {
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        };
        GroupKey {
            host: self.host.then(|| host.to_owned()),
            name: self.name.then(|| name.to_owned()),
            tags: self.tags.then(|| sorted(tags)),
            paths: self.paths.then(|| sorted(paths)),
        }
    }
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |list: &Vec<String>| if list.is_empty() { "none".into() } else { list.join(",") };
        let parts = [
            self.host.as_ref().map(|host| format!("host {host}")),
            self.name.as_ref().map(|name| format!("name {name}")),
            self.tags.as_ref().map(|tags| format!("tags {}", list(tags))),
            self.paths.as_ref().map(|paths| format!("paths {}", list(paths))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&if parts.is_empty() { "all snapshots".into() } else { parts.join(", ") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_what_was_asked_for() {
        let tags = ["b".to_owned(), "a".into(), "b".into()];
        let key = |by: &str| by.parse::<GroupBy>().unwrap().key("h", "n", &tags, &[]).to_string();
        assert_eq!(GroupBy::default(), "host,name".parse().unwrap());
        for (by, shown) in [
            ("host,name", "host h, name n"),
            (" names , hosts", "host h, name n"),
            ("tags,paths", "tags a,b, paths none"),
            ("", "all snapshots"),
        ] {
            assert_eq!(key(by), shown, "{by}");
        }
        assert!("host,user".parse::<GroupBy>().is_err());
    }
}
