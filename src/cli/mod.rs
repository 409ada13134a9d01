//! The command line: parse, choose, run; one file a command.
//!
//! Only here is anything printed, asked or read from the environment. Results go to standard output, everything else to
//! standard error. What an error means to the caller is decided in one place, [`exit`].

mod ask;
mod audit;
mod backup;
mod cat;
mod check;
mod completions;
mod config;
mod config_check;
mod config_show;
mod context;
mod copy;
mod diff;
mod drill;
mod dump;
mod dumps;
mod evidence;
mod exit;
mod expect;
mod fetch;
mod find;
mod forget;
mod init;
mod input;
mod json;
mod key;
mod keyfile;
mod location;
mod ls;
mod notices;
mod output;
mod prune;
mod recovery;
mod rekey;
mod repair;
mod report;
mod restore;
mod run;
mod run_text;
mod schedule;
mod secret;
mod select;
mod serve;
mod settings;
mod sheet;
mod show;
mod signals;
mod snapshots;
mod stats;
mod status;
mod summary;
mod tag;
mod units;
mod unlock;
mod version;
mod witness;
mod words;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use context::{Context, Environment, Options};
use exit::Outcome;
use signals::Signals;

use crate::error::Result;

/// Backups of nightly database dumps and folders: deduplicated, compressed, encrypted
///
/// snap keeps snapshots of streams (like the output of pg_dump) and folders in a repository. What did not change since an
/// older snapshot is stored once. Everything is encrypted; without the password or key file the repository cannot be read.
#[derive(Parser)]
#[command(name = "snap", version = version::TEXT, after_help = FIRST_STEPS, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  export SNAP_REPOSITORY=/srv/backup SNAP_PASSWORD_FILE=/root/snap.password
  snap init
  snap backup --stdin-from-command -- pg_dump mydb
  snap snapshots
  snap dump latest > mydb.sql

snap COMMAND --help says more about each command, with examples and exit codes.";

#[derive(clap::Subcommand)]
enum Command {
    Init(init::Args),
    Backup(Box<backup::Args>),
    Run(run::Args),
    Schedule(schedule::Args),
    Restore(restore::Args),
    Dump(dump::Args),
    Drill(drill::Args),
    Snapshots(snapshots::Args),
    Ls(ls::Args),
    Prune(prune::Args),
    Find(find::Args),
    Diff(diff::Args),
    Tag(tag::Args),
    Forget(Box<forget::Args>),
    Check(check::Args),
    Repair(repair::Args),
    Stats(stats::Args),
    Status(status::Args),
    Audit(audit::Args),
    Serve(serve::Args),
    Copy(Box<copy::Args>),
    Key(Box<key::Args>),
    Rekey(rekey::Args),
    Cat(cat::Args),
    Config(config::Args),
    Version(version::Args),
    Completions(completions::Args),
}

impl Command {
    fn run(self, context: &Context) -> Result<Outcome> {
        match self {
            Self::Init(args) => args.run(context),
            Self::Backup(args) => args.run(context),
            Self::Run(args) => args.run(context),
            Self::Schedule(args) => args.run(context),
            Self::Restore(args) => args.run(context),
            Self::Dump(args) => args.run(context),
            Self::Drill(args) => args.run(context),
            Self::Snapshots(args) => args.run(context),
            Self::Ls(args) => args.run(context),
            Self::Prune(args) => args.run(context),
            Self::Find(args) => args.run(context),
            Self::Diff(args) => args.run(context),
            Self::Tag(args) => args.run(context),
            Self::Forget(args) => args.run(context),
            Self::Check(args) => args.run(context),
            Self::Repair(args) => args.run(context),
            Self::Stats(args) => args.run(context),
            Self::Status(args) => args.run(context),
            Self::Audit(args) => args.run(context),
            Self::Serve(args) => args.run(context),
            Self::Copy(args) => args.run(context),
            Self::Key(args) => args.run(context),
            Self::Rekey(args) => args.run(context),
            Self::Cat(args) => args.run(context),
            Self::Config(args) => args.run(context),
            Self::Version(args) => args.run(context),
            Self::Completions(args) => args.run(context),
        }
    }
}

/// Keeps keys and passwords out of core dumps, and this process's memory from others of the same user. What we start is as it would be.
fn hide_memory(environment: &Environment) {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    if environment.get("SNAP_ALLOW_CORE_DUMPS").is_none() {
        // Where it is not to be had, everything else works.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

/// Runs the program.
pub fn run() -> ExitCode {
    exit::record_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::of_parsing(&error),
    };
    let environment = Environment::of_process();
    hide_memory(&environment);
    let context = Context::new(cli.options, environment, Signals::watch());
    let result = catch_unwind(AssertUnwindSafe(|| cli.command.run(&context)));
    exit::of_running(result, &context)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_help_has_a_summary_examples_and_exit_codes() {
        let mut cli = Cli::command();
        cli.build();
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help().to_string();
            for part in ["Examples:\n", "Exit codes:\n", "   0  "] {
                assert!(help.contains(part), "snap {}: {part}", command.get_name());
            }
            assert!(command.get_about().is_some_and(|about| !about.to_string().ends_with('.')));
        }
    }

    #[test]
    fn commands_parse_as_users_of_other_tools_write_them() {
        for line in [
            "snap -r /r backup --stdin --stdin-filename db.sql",
            "snap backup -r /r --stdin-from-command -- pg_dump -Fc db",
            "snap backup /home -e *.o --exclude-caches -x --tag a,b --tag c --host h --time 2026-11-21",
            "snap restore latest~2:/etc -t /tmp/x --include *.conf --overwrite if-changed",
            "snap dump latest db.sql --json",
            "snap ls -l",
            "snap check --read-data-subset 1/7",
            "snap cat key 12",
            "snap prune -n --max-unused 10% --max-repack-size 5G",
            "snap prune --keep-daily 7 -w 4",
            "snap repair index -n",
            "snap repair packs 3f2a 40dc --dry-run",
            "snap repair packs --read-data",
            "snap repair snapshots latest",
            "snap forget --keep-daily 7 --keep-weekly -1 --keep-tag a,b --group-by host,tags --host h -n",
            "snap forget 40dc1520 latest~3 --dry-run",
            "snap tag --add a,b --remove c latest",
            "snap tag --tag old --set new",
            "snap diff --metadata 40dc1520:/etc latest:/etc",
            "snap find -i *.conf passwd -s latest --host h -l",
            "snap key add --new-key-file k --label x",
            "snap key passwd",
            "snap key remove 12 --force",
            "snap key export sheet.html --html",
            "snap key import --recovery-words w",
            "snap copy --from-repo /a --from-password-file p latest --host h --tag t -n",
            "snap run",
            "snap run orders shop -n --json",
            "snap schedule orders --cron",
            "snap schedule --to units",
            "snap status --max-age 8d --host h orders",
            "snap status --health",
            "snap audit --since 2026-01-01 --csv",
            "snap serve --listen 127.0.0.1:0 --token-file f --max-age 8d -a",
            "snap check --read-data-budget 10m",
            "snap check --read-data-budget 50G",
            "snap config check",
            "snap --config /etc/snap/snap.toml config show orders --json",
            "snap rekey --to /b --new-password-file p",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "snap",
            "snap prune latest",
            "snap tag latest",
            "snap tag --set a --add b latest",
            "snap find",
            "snap diff latest",
            "snap check --read-data --read-data-subset 5%",
            "snap status --prometheus --json",
            "snap check --read-data --read-data-budget 5G",
            "snap restore latest",
            "snap key",
            "snap key export",
            "snap key export f --show",
            "snap rekey",
            "snap config",
            "snap schedule --cron --install",
            "snap config example x",
            "snap -q -v stats",
            "snap repair",
            "snap repair packs 3f --read-data",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
