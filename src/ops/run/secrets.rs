//! The surroundings of a job's command: its variables, its secrets, and how long it may take.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::said::Said;
use super::{FetchSecret, RunOptions};
use crate::config::StreamCommand;
use crate::error::{Error, Result};
use crate::source::{Patience, Setting};

/// What a command finds in its variables and nobody else may see.
pub type Secrets = Vec<(String, Zeroizing<Vec<u8>>)>;

/// Variables of a command, and how long it may take. Secrets are fetched when it starts, and never said.
pub fn setting(command: &StreamCommand, patience: Patience, options: &RunOptions, said: &Arc<Said>) -> Setting {
    let (command, fetch, said) = (command.clone(), options.secrets.clone(), said.clone());
    let variables = command.variables.clone();
    let secrets = move || secrets_of(&command, &fetch, &said);
    Setting { variables, secrets: Some(Box::new(secrets)), patience, input: None }
}

/// The secrets that a command finds in its variables.
pub fn secrets_of(command: &StreamCommand, fetch: &FetchSecret, said: &Said) -> Result<Secrets> {
    let mut found = Vec::new();
    for (variable, from) in &command.secrets {
        let value = fetch(from)?;
        if value.contains(&0) {
            return Err(Error::Usage(format!("The secret for {variable} holds a zero byte, which no variable can")));
        }
        said.hide(&value);
        found.push((variable.clone(), value));
    }
    Ok(found)
}
