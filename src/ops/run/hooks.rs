//! The hooks of a job: programs that run around it, and get the report so far.

use std::sync::atomic::AtomicBool;

use crate::config::Hooks;
use crate::error::{Error, Result};
use crate::format::report::{Did, Report};
use crate::source::{CommandLine, Patience, Setting, Sink, run_command};

/// What a variable may hold, with room to spare: the system allows 128 KiB.
const VARIABLE_BYTES_MAX: usize = 96 << 10;

/// Which hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Before,
    After,
    OnSuccess,
    OnFailure,
}

impl Hook {
    pub fn name(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::After => "after",
            Self::OnSuccess => "on_success",
            Self::OnFailure => "on_failure",
        }
    }

    /// The program that is to be run, if any.
    pub fn line(self, hooks: &Hooks) -> Option<&[String]> {
        let line = match self {
            Self::Before => &hooks.before,
            Self::After => &hooks.after,
            Self::OnSuccess => &hooks.on_success,
            Self::OnFailure => &hooks.on_failure,
        };
        line.as_deref()
    }
}

/// Variables of a hook.
pub fn setting(report: &Report, patience: Patience) -> Setting {
    Setting { variables: vec![("SNAP_REPORT".into(), text(report))], patience, ..Setting::default() }
}

/// The report as JSON, without what makes it too long for a variable.
fn text(report: &Report) -> String {
    let fits =
        |report: &Report| Some(String::from_utf8_lossy(&report.encode()).into_owned()).filter(|text| text.len() <= VARIABLE_BYTES_MAX);
    let mut report = report.clone();
    fits(&report)
        .or_else(|| {
            if let Did::Run(run) = &mut report.did {
                run.streams.iter_mut().for_each(|stream| (stream.said, stream.dump) = (String::new(), None));
            }
            fits(&report)
        })
        .unwrap_or_else(|| {
            if let Did::Run(run) = &mut report.did {
                run.streams.clear();
            }
            report.warnings.clear();
            fits(&report).unwrap_or_default()
        })
}

/// Runs a program to its end; if it fails, the error begins with `name`.
pub fn run(name: &str, line: &[String], setting: Setting, said: Sink, interrupted: &AtomicBool) -> Result<()> {
    let line = command_line(line)?;
    run_command(&line, setting, said, interrupted).map_err(|error| match error {
        Error::Command { program, outcome, stderr_tail } => Error::Command { program: format!("{name}: {program}"), outcome, stderr_tail },
        other => other,
    })
}

/// A program and its arguments.
pub fn command_line(words: &[String]) -> Result<CommandLine> {
    match words.split_first() {
        Some((program, args)) if !program.is_empty() => {
            Ok(CommandLine { program: program.into(), args: args.iter().map(Into::into).collect() })
        }
        _ => Err(Error::Usage("A command is empty".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::report::{Run, Stream};

    #[test]
    fn a_report_is_cut_to_what_a_variable_holds() {
        let streams = |count: usize, said: usize| {
            (0..count).map(|number| Stream { name: number.to_string(), said: "x".repeat(said), ..Stream::default() }).collect()
        };
        let report = |streams| {
            let run = Run { job: "j".into(), streams, ..Run::default() };
            Report::new(jiff::Timestamp::UNIX_EPOCH, "h".into(), "u".into(), Did::Run(run))
        };
        for (count, said, streams_left, said_left) in [(2, 4000, 2, 4000), (100, 4000, 100, 0), (5000, 10, 0, 0)] {
            let left = Report::decode(text(&report(streams(count, said))).as_bytes()).unwrap();
            let Did::Run(run) = left.did else { panic!() };
            assert_eq!(run.streams.len(), streams_left);
            assert_eq!(run.streams.first().map_or(0, |stream| stream.said.len()), said_left);
        }
    }
}
