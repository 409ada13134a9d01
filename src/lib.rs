//! The engine of `snap`: content-addressed, deduplicating, encrypted snapshots.
//!
//! Modules live on floors and name only modules on lower floors; `tests/it/tidy.rs` holds that table.
//! The library never prints, asks or reads the environment: only [`cli`] does.
#![forbid(unsafe_code)]

// Floor 0
pub mod error;
pub mod id;
pub mod limits;
pub mod progress;
pub mod replace;
pub mod wording;
pub mod world;
// Floor 1
pub mod chunking;
pub mod compression;
pub mod config;
pub mod crypto;
pub mod dumps;
pub mod format;
pub mod retention;
// Floor 2
pub mod backend;
pub mod index;
pub mod source;
pub mod target;
// Floor 3
pub mod repo;
// Floor 4
pub mod notify;
pub mod ops;
// Floor 5
pub mod serve;
// Floor 6
pub mod cli;
