//! The `snap` command.

fn main() -> std::process::ExitCode {
    snap_backup::cli::run()
}
