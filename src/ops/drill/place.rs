//! Places that snapshots are restored into: ready ones for the common servers, or the user's own programs.
//!
//! A ready place is a shell script that anybody can read: `up` makes the place and prints what leads to it, `load` takes a stream on
//! its standard input and unpacks it by `$SNAP_UNPACK`, `ask` answers a question, `count` counts rows of the tables named on its input, `down` takes the place away.
//! Each keeps to a folder of its own, so that a job with dumps of several kinds has a server for each.

use crate::config::{Ask, Drill};
use crate::error::{Error, Result};

/// Name and script of every ready place.
const READY: [(&str, &str); 4] = [
    ("postgres", include_str!("places/postgres.sh")),
    ("mariadb", include_str!("places/mariadb.sh")),
    ("redis", include_str!("places/redis.sh")),
    ("sqlite", include_str!("places/sqlite.sh")),
];

/// Where a drill takes place.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    script: Option<&'static str>,
    up: Option<Vec<String>>,
    load: Option<Vec<String>>,
    down: Option<Vec<String>>,
}

/// The place that suits a format, as a snapshot calls it; a folder for what needs no server, or none that is ready.
fn suiting(format: &str) -> &'static str {
    match format.split(' ').next().unwrap_or_default() {
        "pg_dump" | "pg_dumpall" => "postgres",
        "mysqldump" => "mariadb",
        "redis" => "redis",
        "sqlite" => "sqlite",
        _ => "folder",
    }
}

impl Place {
    /// The place that a drill is configured to take place in, or that suits the formats of its streams.
    pub fn new(plan: &Drill, formats: &[&str]) -> Result<Self> {
        let name = match (&plan.place, &plan.up) {
            (Some(name), _) => name.clone(),
            (None, Some(_)) => "own".into(),
            (None, None) => formats.iter().map(|format| suiting(format)).find(|place| *place != "folder").unwrap_or("folder").into(),
        };
        let script = READY.iter().find(|(known, _)| *known == name).map(|(_, script)| *script);
        if script.is_none() && !matches!(name.as_str(), "own" | "folder") {
            let known: Vec<&str> = READY.iter().map(|(name, _)| *name).collect();
            return Err(Error::Usage(format!("There is no place {name} for drills; there are {} and folder", known.join(", "))));
        }
        Ok(Self { name, script, up: plan.up.clone(), load: plan.load.clone(), down: plan.down.clone() })
    }

    /// The places of a drill, first the one that is asked in SQL; and for each stream, given by its format, in which of them it belongs.
    pub fn all(plan: &Drill, formats: &[&str]) -> Result<(Vec<Self>, Vec<usize>)> {
        let main = Self::new(plan, formats)?;
        // A user's own programs, and a folder, take whatever there is.
        if main.up.is_some() || main.load.is_some() || main.script.is_none() {
            return Ok((vec![main], vec![0; formats.len()]));
        }
        let has_its_own = formats.iter().any(|format| suiting(format) == main.name);
        let (mut places, mut belongs) = (vec![main], Vec::new());
        for format in formats {
            let name = match suiting(format) {
                // What is not known is for the place that was named, if nothing else is.
                "folder" if !has_its_own => places[0].name.clone(),
                name => name.to_owned(),
            };
            let at = places.iter().position(|place| place.name == name);
            belongs.push(at.unwrap_or(places.len()));
            if at.is_none() {
                places.push(Self::new(&Drill { place: Some(name), ..Drill::default() }, &[])?);
            }
        }
        Ok((places, belongs))
    }

    fn ready(&self, action: &str) -> Option<Vec<String>> {
        let line = ["bash", "-euo", "pipefail", "-c", self.script?, &self.name, action];
        Some(line.map(String::from).to_vec())
    }

    pub fn up(&self) -> Option<Vec<String>> {
        self.up.clone().or_else(|| self.ready("up"))
    }

    /// Nothing: streams become files in the folder.
    pub fn load(&self) -> Option<Vec<String>> {
        self.load.clone().or_else(|| self.ready("load"))
    }

    pub fn count(&self) -> Option<Vec<String>> {
        // Of what a program of the user's own has loaded, nobody but the user knows how to count it.
        if self.load.is_some() { None } else { self.ready("count") }
    }

    pub fn ask(&self, ask: &Ask) -> Result<Vec<String>> {
        match ask {
            Ask::Command(line) => Ok(line.clone()),
            Ask::Sql(_) => self.ready("ask").ok_or_else(|| {
                Error::Usage(format!(
                    "Place {} of the drill understands no SQL; name a place such as postgres, or ask by a command",
                    self.name
                ))
            }),
        }
    }

    pub fn down(&self) -> Option<Vec<String>> {
        match (&self.down, &self.up) {
            (Some(down), _) => Some(down.clone()),
            (None, Some(_)) => None,
            (None, None) => self.ready("down"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_have_their_places() {
        let place = |plan: &Drill, formats: &[&str]| Place::new(plan, formats).map(|place| place.name);
        let none = Drill::default();
        assert_eq!(place(&none, &["gzip", "pg_dump custom"]).unwrap(), "postgres");
        assert_eq!(place(&none, &["tar"]).unwrap(), "folder");
        let named = |name: &str| Drill { place: Some(name.into()), ..Drill::default() };
        assert_eq!(place(&named("sqlite"), &["pg_dump"]).unwrap(), "sqlite");
        assert!(place(&named("oracle"), &[]).unwrap_err().to_string().contains("postgres, mariadb, redis, sqlite and folder"));
        let own = Drill { up: Some(vec!["up".into()]), ..Drill::default() };
        let own = Place::new(&own, &["pg_dump"]).unwrap();
        assert_eq!((own.name.as_str(), own.load(), own.down(), own.count()), ("own", None, None, None));
        assert!(own.ask(&Ask::Sql("select 1".into())).is_err());
    }

    #[test]
    fn streams_go_where_they_belong() {
        let all = |plan: &Drill, formats: &[&str]| {
            let (places, belongs) = Place::all(plan, formats).unwrap();
            belongs.iter().map(|at| places[*at].name.clone()).collect::<Vec<_>>().join(" ")
        };
        let none = Drill::default();
        assert_eq!(all(&none, &["redis", "", "mysqldump", "mysqldump", "tar"]), "redis folder mariadb mariadb folder");
        assert_eq!(all(&none, &["", "tar"]), "folder folder");
        assert_eq!(all(&none, &[]), "");
        // The one that was named is asked, also if another one comes first.
        let named = |name: &str| Drill { place: Some(name.into()), ..Drill::default() };
        assert_eq!(all(&named("mariadb"), &["redis", "mysqldump", ""]), "redis mariadb folder");
        assert_eq!(Place::all(&named("mariadb"), &["redis", "mysqldump"]).unwrap().0[0].name, "mariadb");
        assert_eq!(all(&named("postgres"), &["xz", ""]), "postgres postgres");
        assert_eq!(all(&named("folder"), &["redis", "mysqldump"]), "folder folder");
        let own = Drill { place: Some("postgres".into()), load: Some(vec!["load".into()]), ..Drill::default() };
        assert_eq!(all(&own, &["redis", "pg_dump"]), "postgres postgres");
    }

    #[test]
    fn ready_places_are_sound_scripts() {
        for (name, script) in READY {
            let checked = std::process::Command::new("bash").args(["-n", "-c", script]).output().unwrap();
            assert!(checked.status.success() && checked.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
            for action in ["up)", "load)", "ask)", "count)", "down)"] {
                assert!(script.contains(&format!("\n  {action}")), "{name} {action}");
            }
        }
    }

    #[test]
    fn what_people_are_told_is_what_drills_do() {
        for format in ["pg_dump", "pg_dumpall", "pg_dump custom", "pg_dump tar", "mysqldump", "redis", "sqlite"] {
            let (_, script) = READY.iter().find(|(name, _)| *name == suiting(format)).unwrap();
            let way = crate::dumps::loading(&crate::format::dump::Dump { format: format.into(), ..Default::default() }).unwrap();
            let load = &script[script.find("\n  load)").unwrap()..script.find("\n  ask)").unwrap()];
            // A script may find its program by another name, and says by variables what people fill in.
            let program = way.command.split(' ').next().unwrap();
            let does = load.contains(&format!("$SNAP_UNPACK | {}", if program == "mariadb" { "client" } else { program }));
            let writes = program.is_empty() && load.contains("$SNAP_UNPACK >") && way.note.contains("write it to");
            assert!(does && !program.is_empty() || writes, "{format}: {way:?}");
            for flag in ["--exit-on-error", "--binary-mode", "--max-allowed-packet=1G"] {
                assert!(!way.command.contains(flag) || load.contains(flag), "{format}: {flag}");
            }
        }
    }
}
