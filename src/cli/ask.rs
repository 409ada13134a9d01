//! Asking at the terminal.

use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Asks at the terminal, without showing the answer. `hint` says what to do where there is none.
pub fn once(prompt: &str, hint: &dyn Fn() -> String) -> Result<Zeroizing<Vec<u8>>> {
    let config = rpassword::ConfigBuilder::new().build();
    match rpassword::prompt_password_with_config(prompt, config) {
        Ok(password) => Ok(Zeroizing::new(password.into_bytes())),
        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Err(Error::Interrupted),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Error::Usage("Nothing was entered".into())),
        // There is no terminal.
        Err(_) => Err(Error::Usage(hint())),
    }
}
