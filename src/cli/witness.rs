//! What this host saw of a repository: compared before a command trusts the store, noted after it.

use std::path::PathBuf;

use super::context::{Context, Environment};
use super::output;
use crate::error::{Result, show};
use crate::ops::receipt::Receipts;
use crate::repo::Repository;

/// This host's receipts; none if there is no home.
pub fn receipts(context: &Context) -> Option<Receipts> {
    folder(&context.environment).map(Receipts::new)
}

/// The folder of this host's state.
pub fn folder(environment: &Environment) -> Option<PathBuf> {
    let absolute = |name| environment.path(name).filter(|path| path.is_absolute());
    let own = environment.path("SNAP_STATE_DIR");
    own.or_else(|| Some(absolute("XDG_STATE_HOME")?.join("snap"))).or_else(|| Some(absolute("HOME")?.join(".local/state/snap")))
}

/// Says what speaks against the store: for commands that only add.
pub fn warn(context: &Context, repository: &Repository) {
    let Some(receipts) = receipts(context) else { return };
    match receipts.compare(repository) {
        Ok(doubts) => {
            for (doubt, file) in doubts {
                output::complain(&format!("{doubt} (as {} says); {}", show(&file), doubt.hint()));
            }
        }
        Err(error) => output::complain(&format!("What this host saw of the repository before could not be compared: {error}")),
    }
}

/// Fails if anything speaks against the store: for commands that remove something.
pub fn require(context: &Context, repository: &Repository) -> Result<()> {
    receipts(context).map_or(Ok(()), |receipts| receipts.require(repository))
}

/// Notes what the store holds now.
pub fn note(context: &Context, repository: &Repository) {
    let Some(receipts) = receipts(context) else { return };
    if let Err(error) = receipts.note(repository) {
        output::complain(&format!("What the repository holds now could not be noted on this host: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_have_a_place() {
        for (variables, expected) in [
            (&[("SNAP_STATE_DIR", "s"), ("HOME", "/h")][..], Some("s")),
            (&[("XDG_STATE_HOME", "/x"), ("HOME", "/h")], Some("/x/snap")),
            (&[("XDG_STATE_HOME", "x"), ("HOME", "/h")], Some("/h/.local/state/snap")),
            (&[], None),
        ] {
            assert_eq!(folder(&Environment::of(variables)), expected.map(PathBuf::from));
        }
    }
}
