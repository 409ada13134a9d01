//! How a dump gets back to where it came from: the command for each format, and which programs cannot be the right one.
//!
//! Drills load with the same programs (`ops/drill/places`); what differs there is that a drill forgives owners that are not there.

use crate::format::dump::Dump;

/// How a dump is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loading {
    /// Takes the dump on its standard input, once the words in capitals are filled in. Empty where nothing does.
    pub command: String,
    /// What else there is to say, as part of a sentence; perhaps nothing.
    pub note: &'static str,
}

impl Loading {
    /// For people, on one line.
    pub fn text(&self) -> String {
        match (self.command.as_str(), self.note) {
            ("", note) => note.into(),
            (command, "") => command.into(),
            (command, note) => format!("{command} ({note})"),
        }
    }
}

/// A dump of all databases has that of the accounts in it, and creates each.
const MYSQL_NOTE: &str =
    "into an empty database; what was dumped with --databases or --all-databases, into an empty server without DATABASE";

/// Format, producer if it matters, command, note.
const WAYS: &[(&str, &str, &str, &str)] = &[
    ("pg_dump", "", "psql -X -1 -v ON_ERROR_STOP=1 -d DATABASE", "into an empty database, after its roles"),
    ("pg_dumpall", "", "psql -X -d postgres", "into an empty server; that the role postgres exists already is no trouble"),
    ("pg_dump custom", "", "pg_restore --exit-on-error -d DATABASE", "into an empty database, after its roles"),
    ("pg_dump tar", "", "pg_restore --exit-on-error -d DATABASE", "into an empty database, after its roles"),
    ("pg_dump directory", "", "", "restore the folder, then pg_restore --exit-on-error -d DATABASE FOLDER"),
    ("mysqldump", "mysqldump", "mysql --binary-mode --max-allowed-packet=1G DATABASE", MYSQL_NOTE),
    ("mysqldump", "", "mariadb --binary-mode --max-allowed-packet=1G DATABASE", MYSQL_NOTE),
    ("mongodump archive", "", "mongorestore --archive", ""),
    ("bson", "", "mongorestore --db DATABASE --collection COLLECTION -", ""),
    ("redis", "", "", "write it to dump.rdb in the folder of a Redis server that is stopped and has appendonly no, then start it"),
    ("sqlite", "", "", "it is the database itself: write it to a file"),
    ("firestore", "", "", "restore the folder, copy it into a bucket, then gcloud firestore import gs://BUCKET/FOLDER"),
    ("tar", "", "tar -xf - -C FOLDER", ""),
    ("zip", "", "", "write it to a file, then unzip it"),
];

/// How a dump is loaded, if that can be said.
pub fn loading(dump: &Dump) -> Option<Loading> {
    let fits = |way: &&(&str, &str, &str, &str)| way.0 == dump.format && (way.1.is_empty() || way.1 == dump.producer);
    let way = WAYS.iter().find(fits);
    let unpacked = unpacking(dump);
    let (command, note) = match (way, unpacked) {
        (None, None) => return None,
        // What is in it is not known.
        (None, Some(unpack)) => (unpack.into(), "and what it gives to the program that reads that"),
        (Some((_, _, command, note)), None) => ((*command).into(), *note),
        // Alone among all it unpacks by itself what was packed as a whole.
        (Some(("mongodump archive", _, command, note)), Some("gzip -dc")) => (format!("{command} --gzip"), *note),
        (Some((_, _, "", note)), Some(unpack)) => (unpack.into(), *note),
        (Some((_, _, command, note)), Some(unpack)) => (format!("{unpack} | {command}"), *note),
    };
    Some(Loading { command, note })
}

/// The program that unpacks a dump that was compressed as a whole, from standard input to standard output.
pub fn unpacking(dump: &Dump) -> Option<&'static str> {
    // What pg_dump compresses inside its archives, pg_restore unpacks. Only the name tells an archive that was packed once more.
    let is_inside = dump.format.starts_with("pg_dump ") && super::unpacked_name(dump.path.as_bytes()).len() == dump.path.len();
    match dump.compression.as_str() {
        _ if is_inside => None,
        "gzip" => Some("gzip -dc"),
        "zstd" => Some("zstd -dc"),
        "lz4" => Some("lz4 -dc"),
        "xz" => Some("xz -dc"),
        "bzip2" => Some("bzip2 -dc"),
        _ => None,
    }
}

/// Programs that load dumps or unpack them, and what they take.
const PROGRAMS: &[(&str, &[&str])] = &[
    ("psql", &["pg_dump", "pg_dumpall"]),
    ("pg_restore", &["pg_dump custom", "pg_dump tar"]),
    ("mysql", &["mysqldump"]),
    ("mariadb", &["mysqldump"]),
    ("mongorestore", &["mongodump archive", "bson"]),
    ("bsondump", &["bson"]),
    ("sqlite3", &[]),
    ("redis-cli", &[]),
    ("redis-server", &[]),
    ("tar", &["tar", "pg_dump tar"]),
    ("bsdtar", &["tar", "pg_dump tar", "zip"]),
];
const UNPACKERS: &[(&str, &[&str])] = &[
    ("gzip", &["gzip -dc"]),
    ("gunzip", &["gzip -dc"]),
    ("zcat", &["gzip -dc"]),
    ("pigz", &["gzip -dc"]),
    ("zstd", &["zstd -dc"]),
    ("unzstd", &["zstd -dc"]),
    ("zstdcat", &["zstd -dc"]),
    ("lz4", &["lz4 -dc"]),
    ("xz", &["xz -dc"]),
    ("unxz", &["xz -dc"]),
    ("xzcat", &["xz -dc"]),
    ("bzip2", &["bzip2 -dc"]),
    ("bunzip2", &["bzip2 -dc"]),
];
/// Programs that run another one, named in their arguments.
const WRAPPERS: &[&str] =
    &["sudo", "doas", "runuser", "su", "env", "nice", "ionice", "docker", "podman", "kubectl", "ssh", "chroot", "time"];

/// Why a command (program and arguments) cannot be what loads a dump, if it is known not to be. Of most programs nothing is known.
pub fn mismatch(dump: &Dump, line: &[&str]) -> Option<String> {
    let base = |word: &&str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = base(line.first()?);
    let is_known = |word: &String| PROGRAMS.iter().chain(UNPACKERS).any(|(name, _)| name == word);
    let program = match WRAPPERS.contains(&program.as_str()) {
        true => line[1..].iter().map(base).find(is_known)?,
        false => program,
    };
    let packed = unpacking(dump);
    let unpacks_itself = |program: &str| program == "mongorestore" || program.ends_with("tar");
    let what = describe(dump, packed);
    let wrong = match (PROGRAMS.iter().find(|(name, _)| *name == program), UNPACKERS.iter().find(|(name, _)| *name == program)) {
        (Some((_, formats)), _) => {
            let takes_format = formats.contains(&dump.format.as_str()) || packed.is_some_and(|_| dump.format == dump.compression);
            !takes_format || packed.is_some() && !unpacks_itself(&program)
        }
        (None, Some((_, packings))) => packed.is_none_or(|packed| !packings.contains(&packed)),
        (None, None) => false,
    };
    let right = loading(dump).map_or(String::new(), |loading| format!("; to load it: {}", loading.text()));
    wrong.then(|| format!("{} is {what}, which {program} does not read{right}", dump.path))
}

/// A format as part of a sentence: `a dump by pg_dump, packed by gzip`.
fn describe(dump: &Dump, packed: Option<&str>) -> String {
    let what = match dump.format.as_str() {
        "pg_dump" | "pg_dumpall" => format!("SQL by {}", dump.format),
        "pg_dump custom" => "an archive by pg_dump -Fc".into(),
        "pg_dump tar" => "an archive by pg_dump -Ft".into(),
        "mysqldump" => "SQL for MySQL or MariaDB".into(),
        "mongodump archive" => "an archive by mongodump".into(),
        "redis" => "a database file of Redis".into(),
        "sqlite" => "a database file of SQLite".into(),
        format => format!("in the format {format}"),
    };
    match packed.and_then(|unpack| unpack.split(' ').next()) {
        Some(packer) if dump.format != dump.compression => format!("{what}, packed by {packer}"),
        _ => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(path: &str, format: &str, compression: &str) -> Dump {
        Dump { path: path.into(), format: format.into(), compression: compression.into(), ..Dump::default() }
    }

    fn command(dump: &Dump) -> String {
        loading(dump).unwrap().command
    }

    #[test]
    fn each_format_has_its_way_back() {
        assert!(command(&dump("a", "pg_dump", "")).starts_with("psql "));
        assert!(command(&dump("a", "pg_dump custom", "gzip")).starts_with("pg_restore "));
        assert!(command(&dump("a.dump.gz", "pg_dump custom", "gzip")).starts_with("gzip -dc | pg_restore "));
        assert!(command(&dump("a.zst", "pg_dumpall", "zstd")).starts_with("zstd -dc | psql "));
        assert_eq!(command(&dump("a", "mongodump archive", "gzip")), "mongorestore --archive --gzip");
        assert!(command(&dump("a", "mongodump archive", "zstd")).starts_with("zstd -dc | mongorestore --archive"));
        assert_eq!(command(&dump("a.xz", "xz", "xz")), "xz -dc");
        assert_eq!((command(&dump("a", "redis", "")), command(&dump("a.gz", "redis", "gzip"))), ("".into(), "gzip -dc".into()));
        let mysql = Dump { producer: "mysqldump".into(), ..dump("a", "mysqldump", "") };
        assert!(command(&mysql).starts_with("mysql ") && command(&dump("a", "mysqldump", "")).starts_with("mariadb "));
        assert_eq!(loading(&dump("a", "of tomorrow", "")), None);
        // Every format that a snapshot may name, but for parts of something.
        use super::super::Format::*;
        for format in [PgDump, PgDumpAll, PgDumpCustom, PgDumpFolder, Mysqldump, MongoArchive, Bson, Redis, FirestoreMetadata, Sqlite, Tar]
        {
            let loading = loading(&dump("a", format.name(), "")).unwrap();
            assert!(!loading.text().is_empty() && !loading.text().starts_with(' '), "{format:?}");
        }
    }

    #[test]
    fn wrong_programs_are_noticed() {
        let custom = dump("shop.dump", "pg_dump custom", "gzip");
        let said = mismatch(&custom, &["/usr/bin/psql", "shop"]).unwrap();
        let expected =
            "shop.dump is an archive by pg_dump -Fc, which psql does not read; to load it: pg_restore --exit-on-error -d DATABASE";
        assert!(said.starts_with(expected), "{said}");
        for (path, format, compression, line, is_wrong) in [
            ("a", "pg_dump custom", "", &["pg_restore"][..], false),
            ("a", "pg_dump custom", "gzip", &["gunzip"], true),
            ("a", "pg_dump", "", &["pg_restore"], true),
            ("a", "pg_dump", "", &["sudo", "-u", "postgres", "psql"], false),
            ("a", "pg_dump", "", &["docker", "exec", "-i", "db", "mysql"], true),
            ("a", "pg_dump", "", &["ssh", "db", "load"], false),
            ("a", "pg_dump", "", &["cat"], false),
            ("a", "pg_dump", "", &["sh", "-c", "mysql"], false),
            ("a.gz", "pg_dump", "gzip", &["psql"], true),
            ("a.gz", "pg_dump", "gzip", &["gzip", "-dc"], false),
            ("a.gz", "pg_dump", "gzip", &["zstd", "-dc"], true),
            ("a.gz", "gzip", "gzip", &["psql"], true),
            ("a.tgz", "tar", "gzip", &["tar", "-xz"], false),
            ("a", "mongodump archive", "gzip", &["mongorestore", "--archive", "--gzip"], false),
            ("a", "mysqldump", "", &["mariadb", "shop"], false),
            ("a", "mysqldump", "", &["psql"], true),
            ("a", "redis", "", &["redis-cli", "--pipe"], true),
            ("a", "sqlite", "", &["sqlite3", "a.db"], true),
            ("a", "pg_dump", "", &[], false),
        ] {
            assert_eq!(mismatch(&dump(path, format, compression), line).is_some(), is_wrong, "{format} {compression} {line:?}");
        }
    }
}
