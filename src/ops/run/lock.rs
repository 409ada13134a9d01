//! One run of a job at a time on this host.
//!
//! A lock of the kernel's on an open file: it ends with the process, however that ends, so there are no stale ones.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Observer, RunOptions};
use crate::config::{Job, Overlap};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::replace;
use crate::repo::Repository;

/// How often a lock is tried again.
const INTERVAL: Duration = Duration::from_millis(200);

/// The lock of a job, until it is dropped.
pub struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // To close the file is not enough: a child that was just forked, and has not become its program yet, has it open as well.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Takes the job's lock; nothing where this host keeps no state.
pub fn take(
    repository: &Repository,
    job: &Job,
    options: &RunOptions,
    observer: &dyn Observer,
    progress: &dyn Progress,
) -> Result<Option<Lock>> {
    let Some(state) = &options.state else { return Ok(None) };
    let folder = state.join("locks");
    replace::make_folder(&folder).map_err(|error| Error::file("make", &folder, error))?;
    let path = folder.join(format!("{}-{}.lock", &repository.id().to_string()[..16], file_name(&job.name)));
    let opened = File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(|error| Error::file("open", &path, error))?;
    let mut told = false;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) if job.overlap == Overlap::Refuse => {
                let mut holder = String::new();
                // Only for the message.
                let _ = file.read_to_string(&mut holder);
                let holder = holder.lines().next().map(|holder| format!(" ({holder})")).unwrap_or_default();
                return Err(Error::Conflict(format!("The job {} is running on this host already{holder}", job.name)));
            }
            Err(Errno::WOULDBLOCK) if progress.interrupted() => return Err(Error::Interrupted),
            Err(Errno::WOULDBLOCK) => {
                if !told {
                    observer.waiting(&job.name);
                }
                told = true;
                std::thread::sleep(INTERVAL);
            }
            Err(error) => return Err(Error::file("lock", &path, error.into())),
        }
    }
    let holder = format!("process {}, since {:.0}\n", std::process::id(), repository.world().now());
    let noted = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(holder.as_bytes()));
    noted.map_err(|error| Error::file("write", &path, error))?;
    Ok(Some(Lock(file)))
}

/// The name of a job as part of a file's.
fn file_name(job: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let shown: String = job.bytes().take(48).map(|byte| if plain(byte) { char::from(byte) } else { '_' }).collect();
    match shown == job {
        true => shown,
        false => format!("{shown}-{}", &blake3::hash(job.as_bytes()).to_hex()[..12]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_jobs_become_names_of_files_that_differ() {
        assert_eq!(file_name("orders-2_b"), "orders-2_b");
        assert_ne!(file_name("a/b"), file_name("a:b"));
        assert!(!file_name("../x").contains('/') && file_name(&"x".repeat(300)).len() < 80);
    }
}
