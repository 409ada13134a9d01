//! Where restored files go: a folder that hostile names, links and racing programs cannot lead out of.
//!
//! Everything is reached from the target's file descriptor, name by name, without following links (openat2 with
//! RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS; where the kernel lacks it, O_NOFOLLOW for each name).
//! A file is written under a temporary name beside its place and renamed when it is whole and verified; it never stands
//! half-done under its final name. Folders get their times and modes last, in `finish`.

mod beneath;
mod meta;
#[cfg(test)]
mod tests;
mod tree;
mod writer;

pub use tree::{Found, TargetOptions, TreeTarget};
pub use writer::FileWriter;
