//! The `snap` command.
fn main() {}
