//! `snap key`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::context::{Context, NewSecretOptions};
use super::exit::{self, Outcome};
use super::secret::{self, Purpose};
use super::sheet::Sheet;
use super::show::Column::Left;
use super::{keyfile, output, recovery, show, unlock};
use crate::crypto::Secret;
use crate::error::{Error, Result, show as show_path};
use crate::format::slot::Method;
use crate::id::SlotId;
use crate::ops::keys::{self, Current, Describe};
use crate::repo::{KeySlot, Repository};

/// List, add, remove and change the passwords and key files, and print a recovery sheet
///
/// Each password or key file opens the whole repository, through a key slot of its own. What they all lead to is the master
/// key, which never changes: removing a slot takes it from nobody who has it already. If a password, key file or sheet got
/// into wrong hands together with the repository, make a new one with snap rekey.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING), subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "
  snap key list
  snap key add --label laptop
  snap key add --new-key-file /root/snap.key --label nightly
  snap key passwd
  snap key remove 3f2a
  snap key export recovery.html --html
  snap key recover";

#[derive(clap::Subcommand)]
enum Action {
    /// List the key slots: which can open the repository, and which did so now
    List,
    /// Add a password (asked for twice, unless it is given) or a key file
    Add(AddArgs),
    /// Remove a password or key file
    ///
    /// Never the last one. The one that opened the repository now only with --force: better open it with another, which proves
    /// that the other works.
    Remove(RemoveArgs),
    /// Change the password or key file that opens the repository now
    Passwd(AddArgs),
    /// Write a recovery sheet: 24 words, also as a code to scan, that open the repository when all else is lost
    ///
    /// The words are the master key. Print the sheet, keep it safe, and remove the file.
    Export(ExportArgs),
    /// Get back in with the words of a recovery sheet, and set a new password or key file
    #[command(alias = "import")]
    Recover(AddArgs),
}

#[derive(clap::Args)]
struct AddArgs {
    #[command(flatten)]
    new: NewSecretOptions,
    /// What it is, for key list [default: user@host, or as it was]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
}

#[derive(clap::Args)]
struct RemoveArgs {
    /// The first digits of its id, as key list shows it
    #[arg(value_name = "ID")]
    id: String,
    /// Even the one that opened the repository now
    #[arg(long)]
    force: bool,
}

#[derive(clap::Args)]
struct ExportArgs {
    /// File to make; only its owner can read it
    #[arg(value_name = "FILE", required_unless_present = "show", conflicts_with = "show")]
    file: Option<PathBuf>,
    /// Show the sheet on this terminal instead
    #[arg(long, conflicts_with = "html")]
    show: bool,
    /// Make a page for a browser, which prints on one sheet
    #[arg(long)]
    html: bool,
}

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        match self.action {
            Action::List => list(context),
            Action::Add(args) => args.add(context),
            Action::Remove(args) => args.run(context),
            Action::Passwd(args) => args.change(context),
            Action::Export(args) => args.run(context),
            Action::Recover(args) => args.recover(context),
        }
    }
}

impl AddArgs {
    fn describe(&self) -> Describe {
        Describe { label: self.label.clone(), by: unlock::maker() }
    }

    fn secret(&self, context: &Context, repository: &Repository) -> Result<Secret> {
        secret::get(context, &(&self.new).into(), &repository.location(), Purpose::Create)
    }

    fn add(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let id = keys::add(&repository, &self.secret(context, &repository)?, &self.describe())?;
        tell_added(context, id)
    }

    fn recover(self, context: &Context) -> Result<Outcome> {
        let store = unlock::store(context)?;
        unlock::require_manifest(&*store)?;
        let words = match &context.options.secret.recovery_words {
            Some(path) => recovery::read(path)?,
            None => recovery::ask(&store.location())?,
        };
        let repository = unlock::open_with(context, store, words)?;
        let id = keys::add(&repository, &self.secret(context, &repository)?, &self.describe())?;
        tell_added(context, id)
    }

    fn change(self, context: &Context) -> Result<Outcome> {
        let (repository, old) = unlock::open_and_tell(context)?;
        let report = keys::change(&repository, &old, &self.secret(context, &repository)?, &self.describe())?;
        if context.options.json {
            let (added, removed) = (report.added, &report.removed);
            output::print_json(&json!({ "message_type": "key_changed", "added": added, "removed": removed }))?;
        } else if !context.options.quiet {
            let id = report.added.short();
            output::print(&format!("changed: key slot {id} has taken the place of {}", short_list(&report.removed)))?;
        }
        for (name, _) in &report.left {
            let short = &name[..8];
            output::complain(&format!("The new one works, but the old one still opens key slot {short}; run snap key remove {short}"));
        }
        match report.left.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(Outcome::Done),
        }
    }
}

fn tell_added(context: &Context, id: SlotId) -> Result<Outcome> {
    if context.options.json {
        output::print_json(&json!({ "message_type": "key_added", "id": id }))?;
    } else if !context.options.quiet {
        output::print(&format!("key slot {} added", id.short()))?;
    }
    Ok(Outcome::Done)
}

fn short_list(names: &[String]) -> String {
    names.iter().map(|name| &name[..8]).collect::<Vec<_>>().join(" ")
}

impl RemoveArgs {
    fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        let current = if self.force { Current::Remove } else { Current::Keep };
        let name = keys::remove(&repository, &self.id, current)?;
        if context.options.json {
            output::print_json(&json!({ "message_type": "key_removed", "id": name }))?;
        } else if !context.options.quiet {
            output::print(&format!("key slot {} removed", &name[..8]))?;
            output::print(
                "This does not change the master key. If the password or key file leaked, make a new repository with snap rekey.",
            )?;
        }
        Ok(Outcome::Done)
    }
}

impl ExportArgs {
    fn run(self, context: &Context) -> Result<Outcome> {
        if self.show && !std::io::stdout().is_terminal() {
            return Err(Error::Usage("--show is for terminals, so that the words do not end up in a log; give a file instead".into()));
        }
        let repository = unlock::open(context)?;
        let sheet = Sheet::new(&repository, &unlock::host());
        let text = if self.html { sheet.html() } else { sheet.text() };
        let Some(file) = self.file else {
            output::write_all(text.as_bytes())?;
            return Ok(Outcome::Done);
        };
        refuse_inside(&repository, &file)?;
        keyfile::write_new(&file, text.as_bytes(), "write the recovery sheet")?;
        let shown = show_path(&file);
        if context.options.json {
            output::print_json(&json!({ "message_type": "key_exported", "file": shown }))?;
        } else if !context.options.quiet {
            output::print(&format!("recovery sheet written to {shown}"))?;
            output::print("Whoever reads it can open the repository, for ever. Print it, keep it safe, and remove the file.")?;
        }
        Ok(Outcome::Done)
    }
}

/// A sheet in the repository would open it to whoever sees the store.
fn refuse_inside(repository: &Repository, file: &Path) -> Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), Path::new(&repository.location()).canonicalize()) {
        (Ok(folder), Ok(store)) if folder.starts_with(&store) => {
            Err(Error::Usage("A recovery sheet does not belong into the repository that it opens; choose another folder".into()))
        }
        _ => Ok(()),
    }
}

fn list(context: &Context) -> Result<Outcome> {
    let repository = unlock::open(context)?;
    let slots = repository.key_slots()?;
    if context.options.json {
        output::print_json(&Value::Array(slots.iter().map(|slot| as_json(slot, &repository)).collect()))?;
        return Ok(Outcome::Done);
    }
    let columns = [Left(""), Left("ID"), Left("Kind"), Left("Created"), Left("Label"), Left("Made by")];
    let rows: Vec<Vec<String>> = slots.iter().map(|slot| row(slot, &repository)).collect();
    output::print(&format!("{}\n{}", show::table(&columns, &rows), show::count(slots.len() as u64, "key slot")))?;
    if repository.opened_by().is_none() {
        output::print("opened with recovery words")?;
    }
    for slot in &slots {
        if let Some(error) = &slot.note_trouble {
            output::complain(&exit::message(error));
        }
    }
    Ok(Outcome::Done)
}

/// What of a slot cannot be used, and why.
fn trouble(slot: &KeySlot, repository: &Repository) -> Option<String> {
    match &slot.slot {
        Err(error) => Some(exit::message(error)),
        Ok(own) if own.repository != repository.id() => Some("of another repository".into()),
        Ok(own) if own.id.hex() != slot.name => Some(format!("a copy of {}", own.id.short())),
        Ok(_) => None,
    }
}

fn kind(slot: &KeySlot) -> &'static str {
    match slot.slot.as_ref().map(|slot| slot.method) {
        Ok(Method::Password { .. }) => "password",
        Ok(Method::KeyFile) => "key file",
        Err(_) => "unknown",
    }
}

fn row(slot: &KeySlot, repository: &Repository) -> Vec<String> {
    let note = slot.note.clone();
    let known = |text: Option<String>| text.map(|text| output::harmless(&text)).unwrap_or_else(|| "?".into());
    let kind = match trouble(slot, repository) {
        Some(why) => format!("{} ({})", kind(slot), output::harmless(&why)),
        None => kind(slot).into(),
    };
    vec![
        if slot.is_current { "*".into() } else { String::new() },
        slot.name[..8].into(),
        kind,
        known(note.as_ref().map(|note| show::time(note.created))),
        known(note.as_ref().map(|note| note.label.clone())),
        known(note.map(|note| if note.by.is_empty() { note.label } else { note.by })),
    ]
}

fn as_json(slot: &KeySlot, repository: &Repository) -> Value {
    let mut value = json!({ "id": slot.name, "current": slot.is_current, "kind": kind(slot) });
    if let Ok(Method::Password { memory_kib, passes, lanes }) = slot.slot.as_ref().map(|slot| slot.method) {
        value["memory_kib"] = memory_kib.into();
        value["passes"] = passes.into();
        value["lanes"] = lanes.into();
    }
    if let Some(note) = &slot.note {
        value["label"] = note.label.clone().into();
        value["created"] = json!(note.created);
        value["made_by"] = note.by.clone().into();
    }
    if let Some(why) = trouble(slot, repository) {
        value["problem"] = why.into();
    }
    value
}
