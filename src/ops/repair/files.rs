//! What is left of a damaged file: a content of the same length, with holes where bytes are lost.

use std::sync::Mutex;

use crate::crypto::ContentHasher;
use crate::error::{Error, Result};
use crate::format::content::{Content, Hole};
use crate::format::recipe::Run;
use crate::repo::{Frame, RecipeWriter, Repository, Runs, Wanted, Writer};

/// What is left of a file, and what is not.
pub struct Left {
    /// Nothing if no byte is left.
    pub content: Option<Content>,
    /// Lost bytes of the file: offset and length.
    pub lost: Vec<(u64, u64)>,
}

/// Reads all of a file that can be read and lays out the rest as holes.
pub fn salvage(repository: &Repository, writer: &mut Writer, content: &Content) -> Result<Left> {
    let reader = repository.reader()?;
    let broken_off: Mutex<Option<Error>> = Mutex::new(None);
    let wanted = Runs::new(reader.clone(), content.recipe.clone()).map_while(|run| match run {
        Ok(run) => Some(Ok(Wanted { tag: (), run })),
        Err(error) if error.is_damage() => {
            *broken_off.lock().expect("no panic holds it") = Some(error);
            None
        }
        Err(error) => Some(Err(error)),
    });
    let mut layout = Layout { content, offset: 0, next_hole: 0, holes: Vec::new(), lost: Vec::new() };
    let mut recipe = RecipeWriter::new(writer);
    let mut hasher = ContentHasher::default();
    // Once the length of a lost stretch is unknown, nobody knows where what follows belongs.
    let mut is_adrift = false;
    reader.fetch(wanted, |batch| {
        for fetched in batch {
            match fetched.frame {
                _ if is_adrift => {}
                Ok(frame) => take(&frame, &fetched.run, &mut layout, |run, bytes| {
                    hasher.update(bytes);
                    recipe.push(writer, run)
                })?,
                Err(error) if error.is_damage() => is_adrift = true,
                Err(error) => return Err(error.again()),
            }
        }
        Ok(())
    })?;
    layout.lose(u64::MAX);
    let recipe = recipe.finish(writer)?;
    let Layout { holes, lost, .. } = layout;
    let content = Content { hash: hasher.finish(), holes, recipe, ..content.clone() };
    let is_empty = content.stored_len() == 0;
    Ok(Left { content: (!is_empty).then_some(content), lost })
}

/// Takes what a frame has of a run, stretch by stretch.
fn take(frame: &Frame, run: &Run, layout: &mut Layout, mut put: impl FnMut(Run, &[u8]) -> Result<()>) -> Result<()> {
    for ordinal in run.first..run.first + run.count {
        let Some(&len) = frame.table.lens().get(ordinal as usize) else {
            return Err(Error::damaged(format!("frame {}", run.frame), "it has fewer chunks than a recipe says"));
        };
        match frame.chunk(ordinal as usize) {
            Some(bytes) if layout.put(bytes.len() as u64) => put(Run { frame: run.frame, first: ordinal, count: 1 }, bytes)?,
            Some(_) => return Err(Error::damaged(format!("frame {}", run.frame), "a recipe gives more bytes than its file has")),
            None => layout.lose(len.into()),
        }
    }
    Ok(())
}

/// Where in a file the next bytes belong, with its holes passed on the way.
struct Layout<'c> {
    content: &'c Content,
    offset: u64,
    next_hole: usize,
    holes: Vec<Hole>,
    lost: Vec<(u64, u64)>,
}

impl Layout<'_> {
    /// Moves over `len` bytes that are there; false if the file has not as many.
    fn put(&mut self, mut len: u64) -> bool {
        while len > 0 {
            let now = self.room().min(len);
            if now == 0 {
                return false;
            }
            self.offset += now;
            len -= now;
        }
        true
    }

    /// Moves over `len` lost bytes, or all that are left.
    fn lose(&mut self, mut len: u64) {
        while len > 0 {
            let now = self.room().min(len);
            if now == 0 {
                return;
            }
            match self.lost.last_mut() {
                Some((offset, known)) if *offset + *known == self.offset => *known += now,
                _ => self.lost.push((self.offset, now)),
            }
            self.hole(now);
            len -= now;
        }
    }

    /// Passes the holes that begin here; the bytes there are before the next one.
    fn room(&mut self) -> u64 {
        while let Some(hole) = self.content.holes.get(self.next_hole).filter(|hole| hole.offset == self.offset) {
            self.next_hole += 1;
            self.hole(hole.len);
        }
        let end = self.content.holes.get(self.next_hole).map_or(self.content.size, |hole| hole.offset);
        end.saturating_sub(self.offset)
    }

    fn hole(&mut self, len: u64) {
        match self.holes.last_mut() {
            Some(last) if last.offset + last.len == self.offset => last.len += len,
            _ => self.holes.push(Hole { offset: self.offset, len }),
        }
        self.offset += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::content::Encoding;
    use crate::id::ContentHash;

    #[test]
    fn lost_stretches_and_holes_become_one() {
        let hole = |offset, len| Hole { offset, len };
        let content = Content {
            encoding: Encoding::Plain,
            size: 100,
            hash: ContentHash([0; 32]),
            holes: vec![hole(10, 20), hole(90, 10)],
            recipe: Default::default(),
        };
        let layout = || Layout { content: &content, offset: 0, next_hole: 0, holes: Vec::new(), lost: Vec::new() };
        let mut half = layout();
        assert!(half.put(5));
        half.lose(10);
        assert!(half.put(20));
        half.lose(u64::MAX);
        assert_eq!(half.lost, [(5, 5), (30, 5), (55, 35)]);
        assert_eq!(half.holes, [hole(5, 30), hole(55, 45)]);
        let mut whole = layout();
        assert!(whole.put(70));
        whole.lose(u64::MAX);
        assert_eq!((whole.lost.len(), &whole.holes), (0, &content.holes));
        assert!(!layout().put(71));
    }
}
