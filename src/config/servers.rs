//! Ready sources that ask a server: which program, which flags, and how the password gets there.

use super::common::{Common, Variable, stream_name};
use super::reader::{Table, Value};
use super::secrets::secret;
use super::tables::{OPTIONS, Tables};
use super::{Mentioned, StreamCommand, What, values};
use crate::limits::*;

impl<'a> Common<'a> {
    pub(super) fn postgres(&self, table: &Table<'a>) -> Option<Vec<What>> {
        let server = Server::read(table);
        let formats = [("plain", false), ("custom", true)];
        let is_custom = table.choice("format", &formats).unwrap_or(false);
        let password = secret(table, "password").map(|from| Variable::Secret("PGPASSWORD", from));
        let passfile = secret_file(table, "passfile").map(|file| Variable::Clear("PGPASSFILE", file));
        if password.is_some() && passfile.is_some() {
            table.complain("both password and passfile are given; choose one");
        }
        let own: Vec<Variable> = password.into_iter().chain(passfile).collect();
        let at_once = at_once(table, is_custom);
        let globals = table.get("globals").and_then(|value| match value.is_text() {
            true => value.plain(),
            false => value.flag()?.then(|| "globals.sql".to_owned()),
        });
        // Several streams lie in a folder.
        let ending = match (at_once, is_custom) {
            (Some(_), _) => "",
            (None, true) => ".dump",
            (None, false) => ".sql",
        };
        let databases = match (&globals, table.get("database"), table.get("databases")) {
            (Some(_), None, None) => Some(Vec::new()),
            _ => self.databases(table, ending, "all.sql"),
        };
        if at_once.is_some() && databases.iter().flatten().any(|(database, _)| database.is_none()) {
            table.complain("all databases come from one pg_dumpall; write a list of them for parallel");
        }
        if globals.is_some() && databases.iter().flatten().any(|(database, _)| database.is_none()) {
            table.complain("all databases come with the globals; leave globals out");
        }
        table.finish();

        let program = server.program("pg_dump");
        let beside = |name: &str| program.strip_suffix("pg_dump").map_or(name.to_owned(), |folder| format!("{folder}{name}"));
        let all_program = beside("pg_dumpall");
        let mut made = Vec::new();
        for (database, name) in databases? {
            let mut line = match &database {
                Some(_) if is_custom => vec![program.clone(), "--no-password".into(), "--format=custom".into(), "--compress=0".into()],
                Some(_) => vec![program.clone(), "--no-password".into(), "--format=plain".into()],
                None => vec![all_program.clone(), "--no-password".into()],
            };
            line.extend(server.options("--host=", "--port=", "--username="));
            line.extend(server.own.clone());
            if let (Some(at_once), Some(database)) = (at_once, &database) {
                let mut holder: Vec<String> = [&beside("psql"), "-X", "-A", "-t", "-q", "--no-password"].map(str::to_owned).to_vec();
                holder.extend(["-F", " ", "-v", "ON_ERROR_STOP=1"].map(str::to_owned));
                holder.extend(server.options("--host=", "--port=", "--username="));
                holder.push(format!("--dbname={database}"));
                let (holder, dump) = (self.command(&name, holder, own.clone()), self.command(&name, line, own.clone()));
                made.push(What::Tables(Tables { name, at_once, holder, dump, database: database.clone() }));
                continue;
            }
            line.extend(database);
            made.push(self.stream(name, line, own.clone(), Some("postgres")));
        }
        if let Some(name) = globals {
            let mut line = vec![all_program, "--no-password".into(), "--globals-only".into()];
            line.extend(server.options("--host=", "--port=", "--username="));
            made.push(self.stream(name, line, own, Some("postgres")));
        }
        server.mention(table, &made);
        Some(made)
    }

    /// A program of a source of several streams.
    fn command(&self, name: &str, line: Vec<String>, own: Vec<Variable>) -> StreamCommand {
        match self.stream(name.into(), line, own, Some("postgres")) {
            What::Command(command) => command,
            _ => StreamCommand::default(),
        }
    }

    pub(super) fn mysql(&self, table: &Table<'a>, made_by: &'static str, program: &str) -> Option<Vec<What>> {
        let server = Server::read(table);
        let password = secret(table, "password").map(|from| Variable::Secret("MYSQL_PWD", from));
        let defaults = secret_file(table, "defaults_file");
        let socket = table.path("socket");
        if password.is_some() && defaults.is_some() {
            table.complain("both password and defaults_file are given; choose one");
        }
        let databases = self.databases(table, ".sql", "all.sql");
        table.finish();

        let mut made = Vec::new();
        for (database, name) in databases? {
            let mut line = vec![server.program(program)];
            // Only as the first argument is it read.
            line.extend(defaults.iter().map(|file| format!("--defaults-extra-file={file}")));
            let fixed = ["--single-transaction", "--skip-dump-date", "--order-by-primary", "--routines", "--events", "--triggers"];
            line.extend(fixed.map(str::to_owned));
            line.extend(server.options("--host=", "--port=", "--user="));
            line.extend(socket.iter().map(|path| format!("--socket={}", path.to_string_lossy())));
            line.extend(server.own.clone());
            line.push(database.unwrap_or_else(|| "--all-databases".into()));
            made.push(self.stream(name, line, password.clone().into_iter().collect(), Some(made_by)));
        }
        server.mention(table, &made);
        Some(made)
    }

    pub(super) fn mongodb(&self, table: &Table<'a>) -> Option<Vec<What>> {
        let server = Server::read(table);
        let config = secret_file(table, "config");
        let authentication = table.get("authentication_database").and_then(|value| value.plain());
        let oplog = table.flag("oplog").unwrap_or(false);
        if let Some(value) = table.get("password") {
            let advice = "write config = \"/etc/snap/mongodb.yaml\", a file that only you can read with the line password: ...";
            value.complain(format!("mongodump takes a password from a file only; {advice}"));
        }
        // Without a name it dumps all.
        let databases = match (table.get("database"), table.get("databases")) {
            (None, None) => Some(vec![(None, self.fixed_name("mongodb.archive")?)]),
            _ => self.databases(table, ".archive", "mongodb.archive"),
        };
        if oplog && databases.iter().flatten().any(|(database, _)| database.is_some()) {
            table.complain("oplog goes with the whole server; leave database and databases out");
        }
        table.finish();

        let mut made = Vec::new();
        for (database, name) in databases? {
            let mut line = vec![server.program("mongodump"), "--archive".into(), "--numParallelCollections=1".into()];
            line.extend(config.iter().map(|file| format!("--config={file}")));
            line.extend(server.options("--host=", "--port=", "--username="));
            line.extend(authentication.iter().map(|name| format!("--authenticationDatabase={name}")));
            line.extend(oplog.then(|| "--oplog".to_owned()));
            line.extend(server.own.clone());
            line.extend(database.map(|name| format!("--db={name}")));
            made.push(self.stream(name, line, Vec::new(), Some("mongodb")));
        }
        server.mention(table, &made);
        Some(made)
    }

    pub(super) fn redis(&self, table: &Table<'a>) -> Option<Vec<What>> {
        let server = Server::read(table);
        let password = secret(table, "password").map(|from| Variable::Secret("REDISCLI_AUTH", from));
        let socket = table.path("socket");
        let tls = table.flag("tls").unwrap_or(false);
        table.finish();
        let mut line = vec![server.program("redis-cli")];
        let pairs = [("-h", server.host.clone()), ("-p", server.port.map(|port| port.to_string())), ("--user", server.user.clone())];
        line.extend(pairs.into_iter().filter_map(|(flag, value)| Some([flag.to_owned(), value?])).flatten());
        line.extend(socket.iter().flat_map(|path| ["-s".to_owned(), path.to_string_lossy().into_owned()]));
        line.extend(tls.then(|| "--tls".to_owned()));
        line.extend(server.own.clone());
        line.extend(["--rdb", "-"].map(str::to_owned));
        let name = self.fixed_name("dump.rdb")?;
        let made = vec![self.stream(name, line, password.into_iter().collect(), Some("redis"))];
        server.mention(table, &made);
        Some(made)
    }

    /// Each database with the name of its stream; one nothing for all of them.
    fn databases(&self, table: &Table, ending: &str, all: &str) -> Option<Vec<(Option<String>, String)>> {
        let one = table.get("database");
        let several = table.get("databases");
        let value = match (one, several) {
            (Some(_), Some(several)) => {
                several.complain("both database and databases are given; choose one");
                return None;
            }
            (Some(one), None) => {
                let database = database(&one)?;
                let name = self.stream_name(&format!("{database}{ending}"), &one)?;
                return Some(vec![(Some(database), name)]);
            }
            (None, None) => {
                table.complain(format!(
                    "which database? write database = \"NAME\", databases = [\"A\", \"B\"] or databases = \"all\" in {}",
                    table.name
                ));
                return None;
            }
            (None, Some(several)) => several,
        };
        if value.is_text() {
            if value.text()? != "all" {
                value.complain("write a list, as in [\"orders\", \"customers\"], or \"all\"");
                return None;
            }
            return Some(vec![(None, self.stream_name(all, &value)?)]);
        }
        let items = value.items();
        if items.is_empty() {
            value.complain("there is no database in it");
        }
        if let (Some(name), true) = (&self.name, items.len() > 1) {
            name.complain("each database is a stream of its own, called like the database; leave the name out");
        }
        let own = self.name.as_ref().filter(|_| items.len() == 1);
        let found = items.iter().filter_map(|item| {
            let database = database(item)?;
            let name = stream_name(own, &format!("{database}{ending}"), item)?;
            Some((Some(database), name))
        });
        Some(found.collect())
    }
}

/// What the ready sources of servers have in common.
struct Server {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    /// Further options of the user's own.
    own: Vec<String>,
    program: Option<String>,
}

impl Server {
    fn read(table: &Table) -> Self {
        let plain = |key| table.get(key).and_then(|value| value.plain());
        let own = table.get("options").and_then(|value| {
            let options = value.texts()?;
            values::refuse_secrets(&options).map_err(|why| value.complain(why)).ok()?;
            Some(options)
        });
        let port = table.get("port").and_then(|value| value.port());
        Self { host: plain("host"), port, user: plain("user"), own: own.unwrap_or_default(), program: plain("program") }
    }

    fn program(&self, default: &str) -> String {
        self.program.clone().unwrap_or_else(|| default.into())
    }

    fn options(&self, host: &str, port: &str, user: &str) -> Vec<String> {
        let port = self.port.map(|number| format!("{port}{number}"));
        let texts = [(host, &self.host), (user, &self.user)].map(|(flag, value)| value.as_ref().map(|value| format!("{flag}{value}")));
        let [host, user] = texts;
        host.into_iter().chain(port).chain(user).collect()
    }

    fn mention(&self, table: &Table, made: &[What]) {
        for what in made {
            for command in what.commands() {
                let skip = if command.line.first().is_some_and(|first| first == "runuser") { 4 } else { 0 };
                if let Some(program) = command.line.get(skip) {
                    table.reader.mention(table.at, Mentioned::Program(program.clone()));
                }
            }
        }
    }
}

/// How many streams of a database are made at a time, if it is to be several.
fn at_once(table: &Table, is_custom: bool) -> Option<usize> {
    let value = table.get("parallel")?;
    let number = value.count()?;
    let Some(number) = usize::try_from(number).ok().filter(|number| (1..=STREAMS_AT_ONCE_MAX).contains(number)) else {
        value.complain(format!("write how many tables are to be dumped at a time, 1 to {STREAMS_AT_ONCE_MAX}"));
        return None;
    };
    if is_custom {
        value.complain("several streams at once are plain; leave format = \"custom\" out");
    }
    let options = table.get("options").and_then(|options| Some((options.texts()?, options)));
    if let Some((words, options)) = options {
        let name = |word: &String| word.split('=').next().unwrap_or_default().to_owned();
        if let Some(word) = words.iter().find(|word| !OPTIONS.contains(&name(word).as_str())) {
            options.complain(format!(
                "{word} does not go with parallel, where each stream has options of its own; possible are {}",
                OPTIONS.join(", ")
            ));
        }
    }
    Some(number)
}

/// The path of a file in which a password stands that a program reads itself.
fn secret_file(table: &Table, key: &'static str) -> Option<String> {
    let value = table.get(key)?;
    let path = value.path()?;
    value.reader.mention(value.at, Mentioned::Secret(path.clone()));
    Some(path.to_string_lossy().into_owned())
}

fn database(value: &Value) -> Option<String> {
    let name = value.plain()?;
    // Programs would take it for the parameters of a connection, with a password perhaps.
    if name.contains("://") || name.contains('=') {
        value.complain("write the name of a database; host, port and user have keys of their own");
        return None;
    }
    Some(name)
}
