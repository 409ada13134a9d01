//! Snapshots: every catalog and recipe is followed to its frames; what leads to damage or nowhere is affected.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::structure::Inventory;
use super::{Affected, Remedy, Run};
use crate::error::{Result, show_bytes};
use crate::format::content::Content;
use crate::format::entry::{Entry, Node};
use crate::format::recipe::{Recipe, Run as RecipeRun};
use crate::id::{FrameId, SnapshotId};
use crate::ops::go_on;
use crate::repo::{CatalogReader, Reader, Runs, Stored, Unreadable};

/// What helps where nothing brings lost bytes back.
const CUT: Option<Remedy> = Some(Remedy::Snapshots);

/// A path without lost bytes is whole; a lost catalog has no path.
struct Hurt {
    path: Vec<u8>,
    ranges: Vec<(u64, u64)>,
}

/// Follows every snapshot.
pub fn check(run: &mut Run, inventory: &Inventory, (snapshots, unreadable): (Vec<Stored>, Vec<Unreadable>)) -> Result<()> {
    run.report.snapshots = (snapshots.len() + unreadable.len()) as u64;
    for (name, error) in unreadable {
        run.trouble(format!("snapshot {name}"), &error, CUT);
        if let Ok(snapshot) = name.parse() {
            run.report.affected.push(Affected { snapshot, path: Vec::new(), ranges: Vec::new() });
        }
    }
    // Unchanged nights share their catalog: each is followed once.
    let mut by_catalog: Vec<(Recipe, Vec<Stored>)> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    for stored in snapshots {
        let recipe = stored.snapshot.catalog.0.clone();
        let mut key = Vec::new();
        recipe.encode(&mut key);
        let place = *places.entry(key).or_insert(by_catalog.len());
        match by_catalog.get_mut(place) {
            Some((_, sharing)) => sharing.push(stored),
            None => by_catalog.push((recipe, vec![stored])),
        }
    }
    let mut frames = Frames { inventory, frames: HashMap::new(), searched: HashSet::new(), reader: run.repository.reader()?.clone() };
    for (_, sharing) in by_catalog {
        let hurt = follow(run, &mut frames, &sharing[0])?;
        let ids: Vec<SnapshotId> = sharing.iter().map(|stored| stored.id).collect();
        for snapshot in ids {
            let affected = hurt.iter().map(|hurt| Affected { snapshot, path: hurt.path.clone(), ranges: hurt.ranges.clone() });
            run.report.affected.extend(affected);
        }
    }
    Ok(())
}

/// Everything in a snapshot that is hurt.
fn follow(run: &mut Run, frames: &mut Frames, stored: &Stored) -> Result<Vec<Hurt>> {
    let mut hurt = Vec::new();
    let mut files = 0;
    let catalog = CatalogReader::open(run.repository, &stored.snapshot)?;
    if let Err(error) = catalog.rows() {
        run.trouble(format!("table of paths of snapshot {}", stored.id.short()), &error, CUT);
    }
    for entry in catalog {
        go_on(run.progress)?;
        match entry {
            Ok(Entry { path, node: Node::File { content: Some(content) }, .. }) => {
                files += 1;
                let ranges = follow_content(run, frames, stored, &path, &content)?;
                if !ranges.is_empty() {
                    hurt.push(Hurt { path, ranges });
                }
            }
            Ok(Entry { node: Node::File { .. }, .. }) => files += 1,
            Ok(_) => {}
            Err(error) => {
                run.trouble(format!("catalog of snapshot {}", stored.id.short()), &error, CUT);
                hurt.push(Hurt { path: Vec::new(), ranges: Vec::new() });
            }
        }
    }
    if files != stored.snapshot.totals.files && hurt.is_empty() {
        let said = stored.snapshot.totals.files;
        run.finding(format!("snapshot {}", stored.id.short()), format!("Its catalog has {files} files and not {said}"), None);
    }
    Ok(hurt)
}

/// The lost ranges of a file: of its bytes, holes left out.
fn follow_content(run: &mut Run, frames: &mut Frames, stored: &Stored, path: &[u8], content: &Content) -> Result<Vec<(u64, u64)>> {
    let mut lost: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    let expected = content.stored_len();
    let subject = || format!("{} in snapshot {}", show_bytes(path), stored.id.short());
    for part in Runs::new(frames.reader.clone(), content.recipe.clone()) {
        let part = match part {
            Ok(part) => part,
            Err(error) => {
                run.trouble(subject(), &error, CUT);
                lost.push((at, expected.saturating_sub(at)));
                return Ok(lost);
            }
        };
        match frames.lengths(run, &part) {
            Some(lens) => {
                for (len, there) in lens {
                    if !there {
                        match lost.last_mut() {
                            Some((offset, known)) if *offset + *known == at => *known += len,
                            _ => lost.push((at, len)),
                        }
                    }
                    at += len;
                }
            }
            None => {
                lost.push((at, expected.saturating_sub(at)));
                return Ok(lost);
            }
        }
    }
    if at != expected {
        run.finding(subject(), format!("Its recipe gives {at} bytes and not {expected}"), CUT);
        lost.push((at.min(expected), expected.abs_diff(at)));
    }
    Ok(lost)
}

/// Length of each chunk of a frame, and whether it is there.
type Lengths = Vec<(u32, bool)>;

/// Frames met so far that are not simply whole.
struct Frames<'a> {
    inventory: &'a Inventory,
    frames: HashMap<FrameId, Option<Lengths>>,
    /// Those of which something is lost.
    searched: HashSet<FrameId>,
    reader: Arc<Reader>,
}

impl Frames<'_> {
    /// Length of each chunk of a run, and whether it is there; nothing if even the lengths are lost.
    fn lengths(&mut self, run: &mut Run, part: &RecipeRun) -> Option<Vec<(u64, bool)>> {
        let id = part.frame;
        let held = self.inventory.frames.get(&id);
        let sound = held.is_some_and(|held| held.whole && part.first + part.count <= held.chunks) && !run.suspects.contains(&id);
        if sound && let Ok(len) = self.reader.locator().run_len(part) {
            return Some(vec![(len, true)]);
        }
        // A copy is damaged or gone: another may be whole, or its chunks elsewhere.
        let range = part.first as usize..(part.first + part.count) as usize;
        let known = self.frames.get(&id).is_some_and(|lens| match lens {
            Some(lens) => lens.get(range.clone()).is_some_and(|lens| lens.iter().all(|(_, there)| *there)),
            None => true,
        });
        if !known && !self.searched.contains(&id) {
            let lens = self.read(run, part);
            self.frames.insert(id, lens);
        }
        let lens = self.frames.get(&id)?.as_ref()?.get(range)?;
        Some(lens.iter().map(|&(len, there)| (len.into(), there)).collect())
    }

    /// Reads a frame; where it lacks what is wanted of it, that was looked for everywhere.
    fn read(&mut self, run: &mut Run, part: &RecipeRun) -> Option<Lengths> {
        let object = format!("frame {}", part.frame);
        match self.reader.frame_with(part) {
            Ok(frame) => {
                if !frame.has(part) {
                    self.searched.insert(part.frame);
                    run.finding(object, "Chunks of it that snapshots need are lost", CUT);
                }
                let lens = frame.table.lens().iter().enumerate();
                Some(lens.map(|(i, &len)| (len, frame.chunk(i).is_some())).collect())
            }
            Err(error) => {
                self.searched.insert(part.frame);
                run.trouble(object, &error, CUT);
                None
            }
        }
    }
}
