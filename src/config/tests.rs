//! Tests of reading `snap.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

fn parsed(text: &str) -> Parsed {
    parse(text.as_bytes(), Path::new("/etc/snap/snap.toml"))
}

/// Complaints as they are printed, without the name of the file.
fn complaints(text: &str) -> Vec<String> {
    let show = |complaint: &Complaint| {
        let word = if complaint.severity == Severity::Warning { "warning: " } else { "" };
        format!("{}:{}: {word}{}", complaint.line, complaint.column, complaint.text)
    };
    parsed(text).complaints.iter().map(show).collect()
}

fn good(text: &str) -> Config {
    let found = parsed(text);
    assert_eq!(found.complaints, [], "{text}");
    found.config
}

/// The visible command line of each stream, with its name and its secrets.
fn lines(source: &str) -> Vec<String> {
    let config = good(&format!("[jobs.a]\n{source}"));
    let show = |source: &Source| match &source.what {
        What::Command(command) => {
            let secrets: Vec<String> = command.secrets.iter().map(|(name, from)| format!("{name}={from:?} ")).collect();
            let clear: Vec<String> = command.variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
            format!("{}: {}{}{}", command.name, secrets.concat(), clear.concat(), command.line.join(" "))
        }
        What::Tables(tables) => {
            let words: Vec<String> = tables.holder.line.clone();
            let mut text = format!("{}/ by {}: {}", tables.name, tables.at_once, words.join(" "));
            for (name, line) in tables.shown() {
                let line: Vec<String> = line.iter().map(|word| word.to_string_lossy().into_owned()).collect();
                text.push_str(&format!("; {name}: {}", line.join(" ")));
            }
            text
        }
        What::Sqlite { name, database } => format!("{name}: sqlite {}", database.display()),
        What::Files { paths, exclude, .. } => format!("{paths:?} without {exclude:?}"),
    };
    config.jobs["a"].sources.iter().map(show).collect()
}

#[test]
fn a_few_lines_are_a_configuration() {
    let config = good(
        r#"
        [repository]
        path = "/srv/backup"
        password = { file = "password" }

        [jobs.orders]
        postgres = { database = "orders" }
        "#,
    );
    assert_eq!(config.repository.path.as_deref(), Some(Path::new("/srv/backup")));
    assert_eq!(config.repository.secret, Some(SecretFrom::File(PathBuf::from("/etc/snap/password"))));
    let job = &config.jobs["orders"];
    assert_eq!((job.tier, job.objectives.max_age), (Tier::Important, Duration::from_secs(26 * 3600)));
    assert_eq!(job.schedule, Schedule::Daily { hour: 2, minute: 15 });
    assert!(job.keep.is_empty() && job.prune.is_none() && job.drill.is_none());
    assert_eq!(good(""), Config { file: "/etc/snap/snap.toml".into(), ..config_of_nothing() });
}

fn config_of_nothing() -> Config {
    let (repository, jobs, notify, serve) = Default::default();
    Config { file: PathBuf::new(), repository, jobs, notify, serve }
}

#[test]
fn the_example_is_right_and_whole() {
    let found = parsed(EXAMPLE);
    assert_eq!(found.complaints, []);
    assert_eq!(found.config.jobs.keys().collect::<Vec<_>>(), ["everything", "orders", "shop"]);
    // Whatever there is stands in it, be it in a comment.
    let words: std::collections::BTreeSet<&str> = EXAMPLE.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let missing: Vec<_> = found.keys.iter().filter(|(_, key)| !words.contains(key)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// `mistakes.txt` holds the mistakes and what is said of them.
#[test]
fn mistakes_are_explained_with_their_places() {
    let cases: Vec<&str> = include_str!("mistakes.txt").split("---\n").skip(1).collect();
    assert!(cases.len() > 60);
    for case in cases {
        let (expected, text): (Vec<&str>, Vec<&str>) = case.lines().partition(|line| line.starts_with("=> "));
        let text = text.join("\n");
        let found: Vec<String> = complaints(&text).iter().map(|complaint| format!("=> {complaint}")).collect();
        assert_eq!(found, expected, "{text}");
        // What may be a secret is never repeated.
        assert!(!expected.concat().contains("geheim"), "{text}");
        // Line ends of other systems move nothing.
        let other: Vec<String> = complaints(&text.replace('\n', "\r\n")).iter().map(|complaint| format!("=> {complaint}")).collect();
        assert_eq!(other, expected, "{text}");
    }
}

#[test]
fn bytes_that_are_no_text_are_a_complaint() {
    let at = |bytes: &[u8]| {
        let found = parse(bytes, Path::new("snap.toml"));
        let one = &found.complaints[0];
        (one.line, one.column, one.text.clone())
    };
    assert_eq!(at(b"[jobs]\nx\xff = 1"), (2, 2, "this is not UTF-8".into()));
    assert_eq!(at(&vec![b'\n'; crate::limits::CONFIG_BYTES_MAX + 1]), (1, 1, "the file is too long for a configuration".into()));
}

#[test]
fn every_ready_source_is_a_visible_command_line() {
    for (source, expected) in [
        (r#"postgres = { database = "orders" }"#, &["orders.sql: pg_dump --no-password --format=plain orders"][..]),
        (
            r#"postgres = { databases = ["a", "b"], host = "db1", port = 5433, user = "u", password = { env = "X" }, globals = true }"#,
            &[
                r#"a.sql: PGPASSWORD=Variable("X") pg_dump --no-password --format=plain --host=db1 --port=5433 --username=u a"#,
                r#"b.sql: PGPASSWORD=Variable("X") pg_dump --no-password --format=plain --host=db1 --port=5433 --username=u b"#,
                r#"globals.sql: PGPASSWORD=Variable("X") pg_dumpall --no-password --globals-only --host=db1 --port=5433 --username=u"#,
            ],
        ),
        (
            r#"postgres = { database = "a", format = "custom", passfile = "pgpass", options = ["--no-comments"], program = "/pg/bin/pg_dump", globals = "g.sql" }"#,
            &[
                "a.dump: PGPASSFILE=/etc/snap/pgpass /pg/bin/pg_dump --no-password --format=custom --compress=0 --no-comments a",
                "g.sql: PGPASSFILE=/etc/snap/pgpass /pg/bin/pg_dumpall --no-password --globals-only",
            ],
        ),
        (
            "postgres = { database = \"a\", parallel = 3, host = \"h\", program = \"/pg/pg_dump\" }\nrun_as = \"u\"",
            &["a/ by 3: runuser -u u -- /pg/psql -X -A -t -q --no-password -F   -v ON_ERROR_STOP=1 --host=h --dbname=a; \
               1-schema.sql: runuser -u u -- /pg/pg_dump --no-password --format=plain --host=h --snapshot=STATE \
               --section=pre-data --section=data --exclude-table-data=TABLE a; \
               2-data/TABLE.sql: runuser -u u -- /pg/pg_dump --no-password --format=plain --host=h --snapshot=STATE \
               --section=data --table=TABLE a; \
               3-indexes.sql: runuser -u u -- /pg/pg_dump --no-password --format=plain --host=h --snapshot=STATE \
               --section=post-data a"],
        ),
        ("postgres = { databases = \"all\" }\nrun_as = \"postgres\"", &["all.sql: runuser -u postgres -- pg_dumpall --no-password"]),
        ("postgres = { globals = true }", &["globals.sql: pg_dumpall --no-password --globals-only"]),
        (
            r#"mysql = { database = "a", user = "u", defaults_file = "my.cnf" }"#,
            &["a.sql: mysqldump --defaults-extra-file=/etc/snap/my.cnf --single-transaction --skip-dump-date --order-by-primary \
               --routines --events --triggers --user=u a"],
        ),
        (
            r#"mariadb = { databases = "all", socket = "/run/m.sock", password = { file = "p" } }"#,
            &[
                r#"all.sql: MYSQL_PWD=File("/etc/snap/p") mariadb-dump --single-transaction --skip-dump-date --order-by-primary --routines --events --triggers --socket=/run/m.sock --all-databases"#,
            ],
        ),
        (
            r#"mongodb = { databases = ["a"], user = "u", authentication_database = "admin", config = "m.yaml" }"#,
            &["a.archive: mongodump --archive --numParallelCollections=1 --config=/etc/snap/m.yaml --username=u \
               --authenticationDatabase=admin --db=a"],
        ),
        ("mongodb = { oplog = true }", &["mongodb.archive: mongodump --archive --numParallelCollections=1 --oplog"]),
        (
            r#"redis = { host = "h", port = 6380, user = "u", tls = true, password = { credential = "redis" } }"#,
            &[r#"dump.rdb: REDISCLI_AUTH=Credential("redis") redis-cli -h h -p 6380 --user u --tls --rdb -"#],
        ),
        (r#"sqlite = "app.db""#, &["app.db: sqlite /etc/snap/app.db"]),
        ("sqlite = { database = \"/a/b.db\" }\nname = \"c.db\"", &["c.db: sqlite /a/b.db"]),
        (r#"firestore = { folder = "/e", accounts = "/a.json" }"#, &[r#"["/e", "/a.json"] without []"#]),
        ("files = [\"/a\", \"b\"]\nexclude = \"*.tmp\"", &[r#"["/a", "/etc/snap/b"] without ["*.tmp"]"#]),
        ("command = [\"/usr/bin/x\", \"\", \"a b\"]\nenvironment = { A = \"b\" }", &["x: A=b /usr/bin/x  a b"]),
        ("shell = \"a | b\"\nname = \"c\"\nsecrets = { P = { file = \"p\" } }", &[r#"c: P=File("/etc/snap/p") bash -o pipefail -c a | b"#]),
        // What the user writes goes before what the source would set.
        (
            "postgres = { database = \"a\", passfile = \"p\" }\nenvironment = { PGPASSFILE = \"/q\" }",
            &["a.sql: PGPASSFILE=/q pg_dump --no-password --format=plain a"],
        ),
    ] {
        assert_eq!(lines(source), expected, "{source}");
    }
    let copy = sqlite_copy(Path::new("/a/b.db"), Path::new("/tmp/x")).join(" ");
    assert_eq!(copy, "sqlite3 -batch -bail -readonly /a/b.db .timeout 60000 .backup main '/tmp/x'");
}

#[test]
fn jobs_go_before_defaults() {
    let config = good(
        r#"
        [defaults]
        tier = "critical"
        tags = ["b", "a"]
        timeout = "1h"
        overlap = "wait"
        keep = { daily = 30, weekly = 12 }
        prune = true
        schedule = "hourly"
        objectives = { max_age = "2h", max_verify_age = "30d" }
        expect = { min_size = "1M", max_shrink = "50%" }
        hooks = { before = ["d1"], after = ["d2"] }
        verify = { snapshot = true, budget = "1G" }

        [jobs.a]
        files = "/a"

        [jobs.b]
        tier = "recoverable"
        tags = []
        timeout = "2h"
        overlap = "refuse"
        keep = { last = 3 }
        prune = false
        schedule = "weekly sun 03:00"
        objectives = { max_age = "8d" }
        expect = { min_size = "2M", tables = ["t"] }
        hooks = { before = ["j1"] }
        verify = { snapshot = false }
        [[jobs.b.source]]
        command = ["x"]
        expect = { min_size = "3M" }
        [[jobs.b.source]]
        command = ["y"]
        "#,
    );
    let (a, b) = (&config.jobs["a"], &config.jobs["b"]);
    let days = |days: u64| Duration::from_secs(days * 86400);
    assert_eq!((a.tier, b.tier), (Tier::Critical, Tier::Recoverable));
    assert_eq!((a.tags.join(","), b.tags.join(",")), ("a,b".into(), String::new()));
    assert_eq!((a.timeout, b.timeout), (Some(Duration::from_secs(3600)), Some(Duration::from_secs(7200))));
    assert_eq!((a.overlap, b.overlap), (Overlap::Wait, Overlap::Refuse));
    assert_eq!((a.keep.to_string(), b.keep.to_string()), ("keep-daily 30 keep-weekly 12".into(), "keep-last 3".into()));
    assert_eq!((a.prune, b.prune), (Some(PruneBudget::default()), None));
    assert_eq!((&a.schedule, &b.schedule), (&Schedule::Hours(1), &Schedule::Weekly { day: 6, hour: 3, minute: 0 }));
    assert_eq!((a.objectives.max_age, b.objectives.max_age), (Duration::from_secs(7200), days(8)));
    assert_eq!((a.objectives.max_verify_age, b.objectives.max_verify_age), (Some(days(30)), Some(days(30))));
    assert_eq!((&a.hooks.before, &b.hooks.before), (&Some(vec!["d1".into()]), &Some(vec!["j1".into()])));
    assert_eq!(b.hooks.after, Some(vec!["d2".into()]));
    assert_eq!((a.verify, b.verify), (Verify { snapshot: true, budget: Some(1 << 30) }, Verify { snapshot: false, budget: Some(1 << 30) }));
    let sizes: Vec<_> = a.sources.iter().chain(&b.sources).map(|source| (source.expect.min_size, source.expect.tables.len())).collect();
    assert_eq!(sizes, [(Some(1 << 20), 0), (Some(3 << 20), 1), (Some(2 << 20), 1)]);
    assert!(b.sources.iter().all(|source| source.expect.max_shrink == Some(0.5)));
}

#[test]
fn all_there_is_arrives() {
    let config = parsed(EXAMPLE).config;
    let orders = &config.jobs["orders"];
    assert_eq!(orders.sources[0].expect.rows["orders"], (Some(1000), None));
    assert_eq!(orders.sources[1].expect, Expect::default(), "globals have no tables");
    let drill = orders.drill.as_ref().unwrap();
    assert_eq!((drill.place.as_deref(), drill.checks.len()), (Some("postgres"), 1));
    assert_eq!(drill.checks[0].answer, Answer::Number { min: Some(1.0), max: None });
    let What::Files { before: Some(before), .. } = &config.jobs["everything"].sources[5].what else { panic!() };
    assert_eq!((before.line[0].as_str(), before.made_by), ("/usr/local/bin/fetch-export", Some("firestore")));
    assert_eq!(before.variables, [("CLOUDSDK_CONFIG".to_owned(), "/etc/snap/gcloud".to_owned())]);
    let mail = config.notify.mail.unwrap();
    assert_eq!(
        (mail.port, mail.security, mail.password),
        (Some(465), MailSecurity::Tls, Some(SecretFrom::File("/etc/snap/mail.password".into())))
    );
    assert_eq!(config.notify.webhooks[0].form, WebhookForm::Slack);
    assert_eq!(config.notify.pings["orders"], SecretFrom::File("/etc/snap/orders.ping".into()));
    assert_eq!(config.notify.repeat_after, Some(Duration::from_secs(86400)));
    assert_eq!(config.serve.listen.as_deref(), Some("127.0.0.1:8077"));
}

#[test]
fn a_mistake_in_a_job_leaves_the_repository() {
    let found = parsed("[repository]\npath = \"/r\"\n[jobs.a]\nkeep = 3\n");
    assert!(found.repository_is_good && found.errors().count() == 2);
    assert_eq!(found.config.repository.path.as_deref(), Some(Path::new("/r")));
    assert!(found.config.jobs.is_empty());
    for text in ["[repository]\npath = 3\n", "[repository]\npath = \"/r\"\n[jobs.a\n"] {
        assert!(!parsed(text).repository_is_good, "{text}");
    }
}

#[test]
fn a_mistake_elsewhere_leaves_whom_to_tell() {
    let notify = "[notify]\ncommand = [\"x\"]\n";
    for (text, is_good) in [
        (format!("[jobs.a]\nkeep = 3\n{notify}"), true),
        (format!("{notify}[repository]\npath = 3\n"), true),
        (format!("[jobs.a]\nkeep =\n{notify}"), true),
        (format!("{notify}[jobs.a]\ncommand = [\"x]\n"), true),
        (format!("{notify}on_sucess = true\n"), false),
        (format!("{notify}[notify.mail]\nto = [\"a@b.c\", \"d@e.f]\n"), false),
    ] {
        let found = parsed(&text);
        assert!(found.errors().next().is_some(), "{text}");
        assert_eq!((found.notify_is_good, found.config.notify.command.is_some()), (is_good, true), "{text}");
    }
}

#[test]
fn what_the_file_speaks_of_has_its_place() {
    let text = "[repository]\nkey_file = \"k\"\n[jobs.a]\npostgres = { database = \"x\", password = { file = \"p\" } }\nrun_as = \"pg\"\n";
    let found: Vec<_> = parsed(text).mentions.into_iter().map(|mention| (mention.line, mention.column, mention.what)).collect();
    assert_eq!(
        found,
        [
            (2, 12, Mentioned::KeyFile("/etc/snap/k".into())),
            (5, 10, Mentioned::User("pg".into())),
            (4, 50, Mentioned::Secret("/etc/snap/p".into())),
            (4, 12, Mentioned::Program("pg_dump".into())),
        ]
    );
}

/// Whatever is done to a file, reading it ends, and every complaint has a place in it.
#[test]
fn no_bytes_make_it_panic() {
    let check = |bytes: &[u8]| {
        let lines = bytes.split(|byte| *byte == b'\n').count();
        let found = parse(bytes, Path::new("snap.toml"));
        for one in &found.complaints {
            assert!((1..=lines).contains(&one.line) && one.column >= 1 && !one.text.is_empty(), "{one:?}");
        }
    };
    let whole = EXAMPLE.as_bytes();
    for at in (0..whole.len()).step_by(23) {
        check(&whole[..at]);
        for byte in *b"\0\"'[]{}=\n#\\5\xff" {
            let mut bytes = whole.to_vec();
            bytes[at] = byte;
            check(&bytes);
        }
    }
    for text in [
        "[".repeat(10_000),
        "a=".to_owned() + &"[".repeat(10_000),
        "a.".repeat(10_000) + "a = 1",
        "a={".repeat(5_000),
        "\u{feff}a=1".into(),
    ] {
        check(text.as_bytes());
    }
}
