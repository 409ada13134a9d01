//! Any bytes as `snap.toml`: reading ends, complaints have places in the file, and what is right means something.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use snap_backup::config::{What, parse, show_schedule};

fuzz_target!(|bytes: &[u8]| {
    let found = parse(bytes, Path::new("/etc/snap/snap.toml"));
    let lines = bytes.split(|byte| *byte == b'\n').count();
    for complaint in &found.complaints {
        assert!((1..=lines).contains(&complaint.line) && complaint.column >= 1 && !complaint.text.is_empty());
    }
    assert!(found.complaints.is_sorted());
    for (name, job) in &found.config.jobs {
        assert!(*name == job.name && !job.sources.is_empty() && !show_schedule(&job.schedule).is_empty());
        for source in &job.sources {
            match &source.what {
                What::Command(command) => assert!(!command.name.is_empty() && !command.line.is_empty()),
                What::Tables(tables) => {
                    assert!(!tables.name.is_empty() && tables.at_once > 0 && !tables.database.is_empty());
                    assert!(!tables.holder.line.is_empty() && !tables.dump.line.is_empty());
                }
                What::Sqlite { name, database } => assert!(!name.is_empty() && database.is_absolute()),
                What::Files { paths, .. } => assert!(!paths.is_empty() && paths.iter().all(|path| path.is_absolute())),
            }
        }
    }
});
