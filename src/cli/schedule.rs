//! `snap schedule`.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::context::Context;
use super::exit::{self, Outcome};
use super::units::{self, Host};
use super::{output, run, settings, unlock};
use crate::config::{Config, Job};
use crate::error::{Error, Result, show};

/// Print, or install, what starts jobs at their times
///
/// By default that is a service and a timer of systemd for each job: with no more rights than the job needs, and making up for
/// what was missed while the machine was off. For root they belong to the system, for others to the user's own services (which
/// need loginctl enable-linger to run while nobody is logged in).
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::SIMPLE))]
pub struct Args {
    /// Jobs to schedule [default: all]
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Write the units where systemd looks for them, and start the timers
    #[arg(long, conflicts_with_all = ["cron", "kubernetes"])]
    install: bool,
    /// Write the units into this folder, and start nothing
    #[arg(long, value_name = "DIR", conflicts_with_all = ["install", "cron", "kubernetes"])]
    to: Option<PathBuf>,
    /// Lines for a crontab
    #[arg(long, conflicts_with = "kubernetes")]
    cron: bool,
    /// CronJobs of Kubernetes
    #[arg(long)]
    kubernetes: bool,
}

const EXAMPLES: &str = "
  snap schedule                  # show the units of all jobs
  snap schedule --install
  snap schedule orders --cron
  snap schedule --kubernetes | kubectl apply -f -";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let config = settings::require(context)?;
        let jobs = run::pick(config, &self.jobs)?;
        if config.repository.path.is_none() {
            let file = show(&config.file);
            return Err(Error::Usage(format!("{file} does not say where the repository is: write path = \"...\" into [repository]")));
        }
        let program = std::env::current_exe().map_err(|error| Error::file("find", "the program", error))?;
        let is_root = rustix::process::geteuid().is_root();
        let zone = jiff::tz::TimeZone::system().iana_name().map(str::to_owned);
        let host = Host { program, user: (!is_root).then(unlock::user), zone };
        if self.cron || self.kubernetes {
            let text = |job: &&Job| if self.cron { units::cron(config, job, &host) } else { units::kubernetes(config, job, &host) };
            let texts: Vec<String> = jobs.iter().map(text).collect();
            output::print(texts.join(if self.cron { "\n" } else { "---\n" }).trim_end())?;
            return Ok(Outcome::Done);
        }
        let files = files(config, &jobs, &host);
        match (&self.to, self.install) {
            (Some(folder), _) => write(folder, &files)?,
            (None, true) => install(&files, is_root, context)?,
            (None, false) => return show_files(&files, context),
        }
        Ok(Outcome::Done)
    }
}

/// Names and texts of all units.
fn files(config: &Config, jobs: &[&Job], host: &Host) -> Vec<(String, String)> {
    let of_job = |job: &&Job| {
        let name = units::unit_name(job);
        [(format!("{name}.service"), units::service(config, job, host)), (format!("{name}.timer"), units::timer(job))]
    };
    jobs.iter().flat_map(of_job).collect()
}

fn show_files(files: &[(String, String)], context: &Context) -> Result<Outcome> {
    if context.options.json {
        let list: Vec<_> = files.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
        output::print_json(&json!(list))?;
        return Ok(Outcome::Done);
    }
    let parts: Vec<String> = files.iter().map(|(name, text)| format!("# {name}\n{text}")).collect();
    output::print(parts.join("\n").trim_end())?;
    Ok(Outcome::Done)
}

fn write(folder: &Path, files: &[(String, String)]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|error| Error::file("make", folder, error))?;
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| Error::file("write", path, error))?;
    }
    Ok(())
}

fn install(files: &[(String, String)], is_root: bool, context: &Context) -> Result<()> {
    let folder = match is_root {
        true => PathBuf::from("/etc/systemd/system"),
        false => {
            let home = || context.environment.path("HOME").map(|home| home.join(".config"));
            let folder = context.environment.path("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(home);
            folder.ok_or_else(|| Error::Usage("There is no home folder for the units; use --to DIR".into()))?.join("systemd/user")
        }
    };
    refuse_others(&folder, files)?;
    write(&folder, files)?;
    systemctl(is_root, &["daemon-reload"])?;
    let timers: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).filter(|name| name.ends_with(".timer")).collect();
    systemctl(is_root, &[&["enable", "--now"][..], &timers].concat())?;
    if !context.options.quiet {
        for timer in timers {
            output::print(&format!("installed {}", show(&folder.join(timer))))?;
        }
    }
    Ok(())
}

/// Fails if one of the services is there and runs something else: then that would never run again, and nobody would notice.
fn refuse_others(folder: &Path, files: &[(String, String)]) -> Result<()> {
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".service")) {
        let path = folder.join(name);
        let installed = match std::fs::read(&path) {
            Ok(installed) => String::from_utf8_lossy(&installed).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::file("read", path, error)),
        };
        if units::runs(&installed) != units::runs(text) {
            let path = show(&path);
            let timer = name.replace(".service", ".timer");
            return Err(Error::Usage(format!(
                "{path} is there and belongs to another configuration; nothing was installed. Give the job another name, or, if that one is \
                 to go: systemctl disable --now {timer}; rm {path}"
            )));
        }
    }
    Ok(())
}

fn systemctl(is_root: bool, args: &[&str]) -> Result<()> {
    let mut command = Command::new("systemctl");
    command.args((!is_root).then_some("--user")).args(args);
    let failed = |error| Error::File { action: "run", path: "systemctl".into(), source: error };
    match command.status().map_err(failed)? {
        status if status.success() => Ok(()),
        status => Err(failed(std::io::Error::other(format!("systemctl {}: {status}", args[0])))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_of_another_configuration_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let files = |file: &str, program: &str| {
            let config = crate::config::parse(b"[repository]\npath = \"/r\"\n[jobs.a]\ncommand = [\"x\"]\n", Path::new(file)).config;
            let host = Host { program: program.into(), user: None, zone: None };
            super::files(&config, &config.jobs.values().collect::<Vec<_>>(), &host)
        };
        let first = files("/etc/snap/snap.toml", "/usr/bin/snap");
        refuse_others(folder.path(), &first).unwrap();
        write(folder.path(), &first).unwrap();
        // The same again, also from another place.
        refuse_others(folder.path(), &first).unwrap();
        refuse_others(folder.path(), &files("/etc/snap/snap.toml", "/usr/local/bin/snap")).unwrap();
        let error = refuse_others(folder.path(), &files("/srv/snap.toml", "/usr/bin/snap")).unwrap_err().to_string();
        assert!(error.contains("snap-a.service is there and belongs to another configuration"), "{error}");
        std::fs::write(folder.path().join("snap-a.service"), "[Service]\nExecStart=/bin/true\n").unwrap();
        assert!(refuse_others(folder.path(), &first).is_err());
    }
}
