//! `snap backup`.

use clap::ValueEnum;
use jiff::Timestamp;

use super::context::{Context, Environment};
use super::exit::{self, Outcome};
use super::input::InputArgs;
use super::report::{Channel, Reporter};
use super::{dumps, location, output, select, show, summary, unlock, witness};
use crate::compression::Level;
use crate::error::{Error, Result};
use crate::ops::backup::{BackupOptions, BackupReport, backup};
use crate::ops::judge::Expect;

/// Save a dump, or files and folders, as a new snapshot
///
/// A dump comes from a command that snap runs (--stdin-from-command -- COMMAND) or from standard input (--stdin). Prefer the
/// first: snap then knows whether the dump is whole, and saves nothing if the command fails. In a pipe, a dump that breaks
/// off looks like one that ended; nothing tells snap that pg_dump failed.
///
/// Dumps of known formats (pg_dump, mysqldump, mongodump, Redis and more) are judged while they are read. One that is not whole
/// is saved and marked: exit code 4, and latest passes over it.
///
/// Files and folders are read as they are; those that look unchanged since the last snapshot (size, times, inode) are not
/// read again. What cannot be read is reported, marked in the snapshot, and makes the exit code 3.
///
/// Snapshots of the same host and name belong together: each is compared with the one before. The command line of a captured
/// command is never recorded.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::BACKUP))]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Tags of the snapshot; may be repeated
    #[arg(long, value_name = "TAG[,TAG...]")]
    tag: Vec<String>,
    /// Name of this host in the snapshot [env: SNAP_HOST] [default: the host's name]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Name of the group the snapshot belongs to [default: the file name of the stream, or the paths]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Time of the snapshot: "2026-11-21 02:00:00" (local) or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = show::parse_time)]
    time: Option<Timestamp>,
    /// Snapshot to compare with [default: the newest of the same host and name]
    #[arg(long, value_name = "SNAPSHOT")]
    parent: Option<String>,
    /// Read all files, even those that look unchanged
    #[arg(short, long)]
    force: bool,
    /// Read everything, store nothing, and say what would have been stored
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Make the repository if there is none (mind that an unmounted disk looks like none)
    #[arg(long, conflicts_with = "dry_run")]
    init: bool,
    /// Save no snapshot if everything is as in the one before
    #[arg(long)]
    skip_if_unchanged: bool,
    /// Save a stream even if it is empty
    #[arg(long)]
    allow_empty: bool,
    /// What the stream should be: anything else counts as an incomplete dump; none: do not judge dumps
    #[arg(long, value_name = "FORMAT")]
    expect: Option<ExpectedFormat>,
    /// How hard to compress [env: SNAP_COMPRESSION] [default: auto]
    #[arg(long, value_name = "LEVEL")]
    compression: Option<Compression>,
    /// Do not store what changed as a difference to older data
    #[arg(long)]
    no_delta: bool,
}

const EXAMPLES: &str = "
  snap backup --stdin-from-command --stdin-filename mydb.sql -- pg_dump mydb
  mysqldump --single-transaction shop | snap backup --stdin --stdin-filename shop.sql
  snap backup /etc /home --exclude-caches -e '*.tmp' --tag nightly
  snap backup /srv/www --dry-run";

/// What a stream should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExpectedFormat {
    /// In any of its forms
    #[value(name = "pg_dump", alias = "postgres")]
    PgDump,
    #[value(name = "pg_dumpall")]
    PgDumpall,
    #[value(aliases = ["mariadb-dump", "mysql", "mariadb"])]
    Mysqldump,
    #[value(alias = "mongodb")]
    Mongodump,
    Redis,
    Sqlite,
    Tar,
    /// Do not judge dumps
    None,
}

impl ExpectedFormat {
    fn expect(self) -> Expect {
        let name = match self {
            Self::None => return Expect::Nothing,
            Self::PgDump => "pg_dump",
            Self::PgDumpall => "pg_dumpall",
            Self::Mysqldump => "mysqldump",
            Self::Mongodump => "mongodump",
            Self::Redis => "redis",
            Self::Sqlite => "sqlite",
            Self::Tar => "tar",
        };
        Expect::Format(name.into())
    }
}

/// How hard to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    Off,
    Fastest,
    /// As much as costs no time
    Auto,
    Better,
    Max,
}

impl From<Compression> for Level {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::Off => Self::Off,
            Compression::Fastest => Self::Fastest,
            Compression::Auto => Self::Auto,
            Compression::Better => Self::Better,
            Compression::Max => Self::Max,
        }
    }
}

impl Args {
    pub fn run(mut self, context: &Context) -> Result<Outcome> {
        let options = self.options(context)?;
        let input = std::mem::take(&mut self.input).prepare()?;
        let repository = match self.init {
            true => unlock::open_or_create(context)?,
            false => unlock::open(context)?,
        };
        witness::warn(context, &repository);
        let reporter = Reporter::start(context, Channel::Stdout);
        let input = input.into_input(&reporter)?;
        let report = backup(&repository, input, &options, &reporter)?;
        let bytes_read = reporter.bytes_done();
        drop(reporter);
        if !options.dry_run {
            witness::note(context, &repository);
        }
        if context.options.json {
            output::print_json(&summary::json(&report, options.dry_run))?;
        } else if !context.options.quiet {
            output::print(&summary::text(&report, bytes_read, options.dry_run, context.options.verbose))?;
        }
        Ok(self.judge(&report, context))
    }

    /// Says what is wrong with what was saved.
    fn judge(&self, report: &BackupReport, context: &Context) -> Outcome {
        let bad = dumps::complaints(report);
        if !context.options.json {
            dumps::warnings(report).iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
            if !context.options.quiet && (report.parent.is_none() || context.options.verbose > 0) {
                dumps::advice(report).iter().for_each(|advice| output::complain_as_is(&format!("  hint: {advice}\n")));
            }
            if report.totals.flawed > 0 {
                let paths = show::count(report.totals.flawed, "path");
                output::complain(&format!("{paths} could not be read, or not wholly: the snapshot is incomplete"));
            }
            bad.iter().for_each(|complaint| output::complain(complaint));
        }
        match (bad.is_empty(), report.totals.flawed) {
            (false, _) => Outcome::IncompleteDump,
            (true, 0) => Outcome::Done,
            (true, _) => Outcome::Incomplete,
        }
    }

    fn options(&self, context: &Context) -> Result<BackupOptions> {
        let environment = &context.environment;
        let configured = || Ok(location::configured(context)?.and_then(|table| table.host.clone()));
        let host = unlock::named_host(self.host.as_ref(), environment, configured)?;
        if self.name.as_ref().is_some_and(String::is_empty) {
            return Err(Error::Usage("The name of the snapshot is empty".into()));
        }
        Ok(BackupOptions {
            user: unlock::user(),
            name: self.name.clone(),
            tags: self.tags(),
            time: self.time,
            parent: self.parent.clone(),
            force: self.force,
            dry_run: self.dry_run,
            skip_if_unchanged: self.skip_if_unchanged,
            allow_empty: self.allow_empty,
            expect: self.expect()?,
            level: compression(self.compression, environment)?.into(),
            delta: !self.no_delta,
            interrupted: context.signals.interrupted(),
            ..BackupOptions::new(host)
        })
    }

    fn expect(&self) -> Result<Expect> {
        match self.expect {
            None => Ok(Expect::Anything),
            Some(format) if format == ExpectedFormat::None || self.input.is_stream() => Ok(format.expect()),
            Some(_) => Err(Error::Usage("--expect FORMAT is for a stream; of files, only --expect none can be said".into())),
        }
    }

    fn tags(&self) -> Vec<String> {
        let mut tags: Vec<String> = self.tag.iter().flat_map(|list| select::tags(list)).collect();
        tags.sort();
        tags.dedup();
        tags
    }
}

/// The level that flag or environment say.
pub fn compression(flag: Option<Compression>, environment: &Environment) -> Result<Compression> {
    match (flag, environment.get("SNAP_COMPRESSION")) {
        (Some(flag), _) => Ok(flag),
        (None, None) => Ok(Compression::Auto),
        (None, Some(text)) => text
            .to_str()
            .and_then(|text| Compression::from_str(text, false).ok())
            .ok_or_else(|| Error::Usage("SNAP_COMPRESSION is none of off, fastest, auto, better, max".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compression_comes_from_the_flag_or_the_environment() {
        let check = |flag, variable: &str, expected| {
            assert_eq!(compression(flag, &Environment::of(&[("SNAP_COMPRESSION", variable)])).ok(), expected);
        };
        check(None, "", Some(Compression::Auto));
        check(None, "max", Some(Compression::Max));
        check(Some(Compression::Off), "max", Some(Compression::Off));
        check(None, "lots", None);
    }
}
