//! `snap cat`.

use clap::ValueEnum;

use super::context::Context;
use super::exit::{self, Outcome};
use super::{output, unlock};
use crate::error::{Error, Result};
use crate::ops::browse::{Object, show};

/// Print an object of the repository as JSON, without secrets
///
/// For looking into a repository: its manifest, a snapshot, an index segment, or a key slot. Names may be cut short.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// What to print
    kind: Kind,
    /// Which: a snapshot (latest, or an id's first digits), or the first digits of an index segment's or key slot's name
    id: Option<String>,
}

const EXAMPLES: &str = "
  snap cat manifest
  snap cat snapshot latest
  snap cat index 3f
  snap cat key 12";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Manifest,
    Snapshot,
    Index,
    Key,
}

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let object = self.object()?;
        let repository = unlock::open(context)?;
        let value = show(&repository, &object)?;
        output::print(&serde_json::to_string_pretty(&value).expect("a JSON value can be printed"))?;
        Ok(Outcome::Done)
    }

    fn object(&self) -> Result<Object> {
        match (self.kind, self.id.clone()) {
            (Kind::Manifest, None) => Ok(Object::Manifest),
            (Kind::Manifest, Some(_)) => Err(Error::Usage("There is only one manifest; write snap cat manifest".into())),
            (Kind::Snapshot, Some(id)) => Ok(Object::Snapshot(id)),
            (Kind::Index, Some(id)) => Ok(Object::Segment(id)),
            (Kind::Key, Some(id)) => Ok(Object::KeySlot(id)),
            (kind, None) => {
                let name = kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
                Err(Error::Usage(format!("Which one? Write snap cat {name} ID")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_manifest_need_a_name() {
        let object = |kind, id: Option<&str>| Args { kind, id: id.map(Into::into) }.object();
        assert_eq!(object(Kind::Manifest, None).unwrap(), Object::Manifest);
        assert_eq!(object(Kind::Key, Some("12")).unwrap(), Object::KeySlot("12".into()));
        assert!(object(Kind::Manifest, Some("x")).is_err());
        assert_eq!(object(Kind::Index, None).unwrap_err().to_string(), "Which one? Write snap cat index ID");
    }
}
