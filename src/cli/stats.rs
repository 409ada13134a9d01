//! `snap stats`.

use super::context::Context;
use super::exit::{self, Outcome};
use super::report::{Channel, Reporter};
use super::{output, show, unlock};
use crate::error::Result;
use crate::ops::stats::{Stats, stats};

/// Say how much is stored, and how much deduplication and compression save
///
/// Restored size is what all snapshots would take if each were restored on its own.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {}

const EXAMPLES: &str = "
  snap stats
  snap stats --json | jq .total_stored_size";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let repository = unlock::open(context)?;
        // Without status lines: the answer is one document.
        let reporter = Reporter::start(context, Channel::Stderr);
        let figures = stats(&repository, &reporter)?;
        drop(reporter);
        if context.options.json {
            output::print_json(&serde_json::to_value(&figures).expect("figures are plain JSON"))?;
        } else {
            output::print(&text(&figures))?;
        }
        Ok(Outcome::Done)
    }
}

fn text(stats: &Stats) -> String {
    let factor = |plain: u64, stored: u64| show::times_smaller(plain, stored).map(|times| format!(" ({times})")).unwrap_or_default();
    let mut lines = vec![
        format!("snapshots     {}", stats.snapshots),
        format!("restored      {} in {}", show::size(stats.total_size), show::count(stats.total_file_count, "file")),
        format!(
            "deduplicated  {} in {}{}",
            show::size(stats.total_uncompressed_size),
            show::count(stats.chunks, "chunk"),
            factor(stats.total_size, stats.total_uncompressed_size)
        ),
        format!(
            "stored        {} in {}{}",
            show::size(stats.total_stored_size),
            show::count(stats.packs, "pack"),
            factor(stats.total_size, stats.total_stored_size)
        ),
        format!("  data        {}", show::size(stats.data_size)),
        format!("  catalogs    {}", show::size(stats.catalog_size)),
        format!("  index       {}", show::size(stats.index_size)),
    ];
    if stats.delta_frames > 0 {
        let (plain, stored) = (show::size(stats.delta_plain_size), show::size(stats.delta_stored_size));
        lines.push(format!("  as deltas   {plain} stored as {stored}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_said() {
        let stats =
            Stats { snapshots: 2, total_size: 4096, total_uncompressed_size: 2048, total_stored_size: 1024, packs: 1, ..Stats::default() };
        let said = text(&stats);
        assert!(said.contains("deduplicated  2.00 KiB in 0 chunks (2.0 times smaller)"), "{said}");
        assert!(said.contains("stored        1.00 KiB in 1 pack (4.0 times smaller)"), "{said}");
    }
}
