//! What `snap.toml` says: the repository, the jobs, what is expected of them, and whom to tell.
//!
//! [`parse`] makes the types here of bytes, with every complaint and its line and column, in one go. Nothing in this module reads a
//! secret, the environment, a file or a repository. Secrets are never in the file, only where they are.

mod common;
mod drill;
mod findings;
mod job;
mod notify;
mod parse;
mod reader;
mod secrets;
mod servers;
mod sources;
mod suggest;
mod tables;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

pub use findings::{Complaint, Mention, Mentioned, Severity};
pub use parse::{Parsed, parse};
pub use sources::sqlite_copy;
pub use tables::{DATA_FOLDER, HOLD, INDEXES_STREAM, Portion, SCHEMA_STREAM, Tables, list_tables, table_stream};
pub use values::{parse_duration, parse_size, show_duration, show_schedule};

use crate::error::Result;
use crate::retention::Policy;

/// A commented file with everything there is.
pub const EXAMPLE: &str = include_str!("example.toml");

/// A configuration file that was parsed and checked. Relative paths in it are made absolute by the folder it lies in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub file: PathBuf,
    pub repository: RepositoryTable,
    /// In the order of their names.
    pub jobs: BTreeMap<String, Job>,
    pub notify: Notify,
    pub serve: Serve,
}

/// `[repository]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RepositoryTable {
    pub path: Option<PathBuf>,
    /// What opens it: at most one.
    pub secret: Option<SecretFrom>,
    /// The name of this host in snapshots, if not the host's own.
    pub host: Option<String>,
    /// Bytes the repository may take.
    pub quota: Option<u64>,
    /// Where Prometheus' node exporter looks for files, such as `/var/lib/prometheus/node-exporter/snap.prom`.
    pub metrics_file: Option<PathBuf>,
}

/// Where a secret is. Never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFrom {
    /// A file that holds it; refused if others than its owner and group root can read it.
    File(PathBuf),
    /// A key file of a repository.
    KeyFile(PathBuf),
    /// A program with its arguments that prints it.
    Command(Vec<String>),
    /// The name of a credential of systemd.
    Credential(String),
    /// The name of a variable of the environment.
    Variable(String),
}

/// Fetches a secret from where it is.
pub type FetchSecret = Arc<dyn Fn(&SecretFrom) -> Result<Zeroizing<Vec<u8>>> + Send + Sync>;

/// How much it hurts to lose it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    Critical,
    #[default]
    Important,
    Recoverable,
}

/// `[jobs.NAME]`: what makes one snapshot, named like the job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub name: String,
    pub tier: Tier,
    pub tags: Vec<String>,
    /// Never empty. Names of streams differ.
    pub sources: Vec<Source>,
    /// The whole run, and how long a stream may say nothing.
    pub timeout: Option<Duration>,
    pub stall_timeout: Option<Duration>,
    pub hooks: Hooks,
    pub overlap: Overlap,
    /// What to keep of this job's snapshots; without rules nothing is ever forgotten.
    pub keep: Policy,
    /// What the clean-up after a run may cost; nothing: no clean-up.
    pub prune: Option<PruneBudget>,
    /// Read back what a run wrote, and so many bytes of what was longest unverified.
    pub verify: Verify,
    pub objectives: Objectives,
    pub schedule: Schedule,
    pub drill: Option<Drill>,
}

impl Job {
    /// Names of the streams among what it saves; of several below a folder, that with a slash. All others are files.
    pub fn streams(&self) -> Vec<String> {
        let name = |source: &Source| match &source.what {
            What::Command(command) => Some(command.name.clone()),
            What::Tables(tables) => Some(format!("{}/", tables.name)),
            What::Sqlite { name, .. } => Some(name.clone()),
            What::Files { .. } => None,
        };
        self.sources.iter().filter_map(name).collect()
    }
}

/// One source of a job.
#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    pub what: What,
    pub expect: Expect,
}

/// What is backed up.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The output of a command as a stream of this name.
    Command(StreamCommand),
    /// A database as several streams at once.
    Tables(Tables),
    /// A file read as one consistent stream by SQLite's own means.
    Sqlite { name: String, database: PathBuf },
    /// Files and folders, with patterns of what is left out; one `before` command may bring them about (an export).
    Files { paths: Vec<PathBuf>, exclude: Vec<String>, one_file_system: bool, before: Option<StreamCommand> },
}

impl What {
    /// The programs of its streams.
    pub fn commands(&self) -> Vec<&StreamCommand> {
        match self {
            Self::Command(command) => vec![command],
            Self::Tables(tables) => vec![&tables.holder, &tables.dump],
            Self::Files { before, .. } => before.iter().collect(),
            Self::Sqlite { .. } => Vec::new(),
        }
    }
}

/// A command as it will be run: what `config show` prints is this and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamCommand {
    /// Name of the stream.
    pub name: String,
    /// Program and arguments. No shell sees them.
    pub line: Vec<String>,
    /// Variables set for it in clear (`PGHOST`, ...).
    pub variables: Vec<(String, String)>,
    /// Variables whose values are secrets (`PGPASSWORD`, `MYSQL_PWD`), fetched just before it is started.
    pub secrets: Vec<(String, SecretFrom)>,
    /// The ready source it was made by: `postgres`, `mysql`, ...; nothing for a command of the user's own.
    pub made_by: Option<&'static str>,
}

/// What must be there for a source to count as good.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect {
    /// Bytes.
    pub min_size: Option<u64>,
    /// By how much it may be smaller than the last good one: 0.5 for `"50%"`.
    pub max_shrink: Option<f64>,
    /// Tables or collections that must be in it.
    pub tables: Vec<String>,
    /// Least and greatest number of rows, by table or collection.
    pub rows: BTreeMap<String, (Option<u64>, Option<u64>)>,
}

/// `[jobs.NAME.hooks]`: programs with arguments. Each gets the report so far as JSON in `SNAP_REPORT`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hooks {
    /// If it fails, the run does.
    pub before: Option<Vec<String>>,
    pub after: Option<Vec<String>>,
    pub on_success: Option<Vec<String>>,
    pub on_failure: Option<Vec<String>>,
}

/// What a second run of a job does while one is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    #[default]
    Refuse,
    Wait,
}

/// What a clean-up may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneBudget {
    /// Most bytes to move; the rest waits for the next run.
    pub max_repack: Option<u64>,
}

/// What a run verifies after it has saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verify {
    /// The new snapshot is read back whole.
    pub snapshot: bool,
    /// Bytes of packs to read that were longest unverified.
    pub budget: Option<u64>,
}

/// When something is too late. A job without its own has those of a daily one.
#[derive(Clone, Debug, PartialEq)]
pub struct Objectives {
    /// Greatest age of the newest good snapshot; 26 hours.
    pub max_age: Duration,
    /// Greatest age of the last drill that passed.
    pub max_drill_age: Option<Duration>,
    /// Greatest age of the last verification.
    pub max_verify_age: Option<Duration>,
    /// How long a restore may take.
    pub max_restore_time: Option<Duration>,
}

impl Default for Objectives {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(26 * 3600), max_drill_age: None, max_verify_age: None, max_restore_time: None }
    }
}

/// When a job runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// At this hour and minute, by local time.
    Daily { hour: u8, minute: u8 },
    /// Every so many hours, from midnight on.
    Hours(u8),
    /// Days 0 (Monday) to 6.
    Weekly { day: u8, hour: u8, minute: u8 },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Daily { hour: 2, minute: 15 }
    }
}

/// `[jobs.NAME.drill]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drill {
    /// A ready place: `postgres`, `mariadb`, `redis`, `sqlite` or `folder`.
    pub place: Option<String>,
    /// Makes the place; what it prints as `NAME=VALUE` lines is set for the other commands.
    pub up: Option<Vec<String>>,
    /// Gets each stream on its standard input; without it the producer's own tool does.
    pub load: Option<Vec<String>>,
    pub down: Option<Vec<String>>,
    pub checks: Vec<DrillCheck>,
}

/// A question to the restored data, and the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct DrillCheck {
    /// What it is about, for the report.
    pub name: String,
    pub ask: Ask,
    pub answer: Answer,
}

/// How it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Sql(String),
    Command(Vec<String>),
}

/// What must come.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Exit code 0, whatever is said.
    Success,
    Text(String),
    Number {
        min: Option<f64>,
        max: Option<f64>,
    },
}

/// `[notify]`: whom to tell, and of what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notify {
    pub webhooks: Vec<Webhook>,
    pub mail: Option<Mail>,
    /// Address of a check in the manner of healthchecks.io: `/start` and `/fail` are put behind it. By job, or for all as "*".
    pub pings: BTreeMap<String, SecretFrom>,
    /// A program that gets the message as JSON on its standard input.
    pub command: Option<Vec<String>>,
    /// Also when all is well.
    pub on_success: bool,
    /// The same trouble is told again after this time; after a day, if nothing is said.
    pub repeat_after: Option<Duration>,
}

/// An address that gets messages. The address is a secret: who has it can post.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    pub url: SecretFrom,
    pub form: WebhookForm,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WebhookForm {
    #[default]
    Json,
    Slack,
    Discord,
}

/// Mail by SMTP.
#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub server: String,
    pub port: Option<u16>,
    pub security: MailSecurity,
    pub user: Option<String>,
    pub password: Option<SecretFrom>,
    pub from: String,
    pub to: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MailSecurity {
    /// TLS from the first byte (port 465).
    #[default]
    Tls,
    /// Plain at first, then TLS or nothing (port 587).
    StartTls,
    /// In clear; for a server on this machine.
    None,
}

/// `[serve]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Serve {
    /// Address and port; 127.0.0.1:8077.
    pub listen: Option<String>,
    /// Needed where it listens to others than this machine.
    pub token: Option<SecretFrom>,
}
