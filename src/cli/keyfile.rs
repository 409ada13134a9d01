//! Key files: random bytes in a file that only its owner can read.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::error::{Error, Result, show};
use crate::limits::*;
use crate::replace;
use crate::world::World;

/// A shorter key could be guessed.
const KEY_BYTES_MIN: usize = 32;

/// Whose business the permissions of a secret file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Ours: others must not read it.
    Mode,
    /// The service manager's, which may use access lists that show as group permissions.
    ServiceManager,
}

/// The bytes of a key file, without space at its end.
pub fn read(path: &Path, guard: Guard) -> Result<Vec<u8>> {
    let (mut key, is_private) = read_secret(path)?;
    if guard == Guard::Mode && !is_private {
        let path = show(path);
        return Err(Error::Usage(format!("Key file {path} can be read by others than its owner; run chmod 600 {path}")));
    }
    let len = key.trim_ascii_end().len();
    if len < KEY_BYTES_MIN {
        return Err(Error::Usage(format!("Key file {} has {len} bytes, at least {KEY_BYTES_MIN} are needed", show(path))));
    }
    key.truncate(len);
    Ok(std::mem::take(&mut *key))
}

/// The bytes of a small file, and whether only its owner can read it (or it is no regular file).
pub fn read_secret(path: &Path) -> Result<(Zeroizing<Vec<u8>>, bool)> {
    let failed = |error| Error::file("read", path, error);
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    // Never grows, so that no copy is left behind in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 1));
    file.take(SECRET_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > SECRET_BYTES_MAX {
        return Err(Error::Usage(format!("{} is too long for a password or key", show(path))));
    }
    Ok((bytes, !meta.is_file() || meta.mode() & 0o077 == 0))
}

/// Makes a new key file: 32 random bytes as hex, durable before anything is locked with them.
pub fn create(path: &Path, world: &World) -> Result<()> {
    let random = Zeroizing::new(world.random::<32>());
    let mut line = Zeroizing::new(String::with_capacity(65));
    random.iter().for_each(|byte| line.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))));
    line.push('\n');
    write_new(path, line.as_bytes(), "create the key file")
}

/// Makes a file that only its owner can read, whole and durable or not at all; never replaces one.
pub fn write_new(path: &Path, bytes: &[u8], action: &'static str) -> Result<()> {
    replace::anew(path, 0o600, bytes).map_err(|error| Error::file(action, path, error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn new_key_files_are_private_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create(&path, &World::system()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let key = read(&path, Guard::Mode).unwrap();
        assert!(key.len() == 64 && key.iter().all(u8::is_ascii_hexdigit));
        assert!(create(&path, &World::system()).is_err(), "an existing file is never replaced");
        assert_eq!(read(&path, Guard::Mode).unwrap(), key);
    }

    #[test]
    fn short_and_open_key_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (content, mode, guard, is_good) in [
            (&[b'x'; 32][..], 0o400, Guard::Mode, true),
            (&[b'x'; 32], 0o640, Guard::Mode, false),
            (&[b'x'; 32], 0o440, Guard::ServiceManager, true),
            (b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n\n", 0o600, Guard::Mode, false),
            (&[b'x'; SECRET_BYTES_MAX + 1], 0o600, Guard::Mode, false),
        ] {
            let _ = std::fs::remove_file(&path);
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, guard).is_ok(), is_good, "{} bytes, mode {mode:o}", content.len());
        }
    }
}
