//! The runs of an index. New rows make a new run, and take with them what runs there are that are not much longer, so that there are
//! always only a few, each several times as long as the next, and a row is rewritten a few times in its life.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::home::Home;
use super::run::{Row, Rows, Run, RunWriter, Shape, Tag};

/// A run is rewritten together with rows of which there are at least one for so many of its own.
const FOLD_RATIO: u64 = 3;

/// Open runs.
pub struct Shelf {
    home: Home,
    /// The shortest first.
    runs: Vec<Arc<Run>>,
}

/// What the database has to hear of before it comes true.
pub struct Change {
    new: Option<Arc<Run>>,
    /// Runs whose rows are in the new one.
    pub old: HashSet<Tag>,
}

impl Change {
    pub fn new_shape(&self) -> Option<&Shape> {
        self.new.as_ref().map(|run| run.shape())
    }
}

impl Shelf {
    pub fn empty(home: Home) -> Self {
        Self { home, runs: Vec::new() }
    }

    /// Opens the runs that the database names, and removes all others of this home.
    pub fn open(home: Home, shapes: Vec<Shape>) -> io::Result<Self> {
        let mut runs = Vec::new();
        for shape in shapes {
            runs.push(Arc::new(Run::open(home.open_run(&shape.tag)?, shape)?));
        }
        home.sweep(&runs.iter().map(|run| run.shape().tag).collect());
        let mut shelf = Self { home, runs };
        shelf.sort();
        Ok(shelf)
    }

    fn sort(&mut self) {
        self.runs.sort_by_key(|run| run.shape().rows);
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Fails if a run is not what was written.
    pub fn verify(&self) -> io::Result<()> {
        self.runs.iter().try_for_each(|run| run.verify())
    }

    /// Every row of a key, once; those of frames merged last come first.
    pub fn find(&self, key: u64) -> io::Result<Vec<Row>> {
        let mut found = Vec::new();
        for run in &self.runs {
            run.find(key, &mut found)?;
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.dedup();
        Ok(found)
    }

    /// Writes a run of these rows and of the runs they take with them.
    pub fn add(&self, mut rows: Vec<Row>) -> io::Result<Option<Change>> {
        if rows.is_empty() {
            return Ok(None);
        }
        rows.sort_unstable();
        let mut total = rows.len() as u64;
        let taken = self.runs.iter().take_while(|run| {
            let fits = run.shape().rows <= total * FOLD_RATIO;
            total += run.shape().rows;
            fits
        });
        let taken = taken.cloned().collect();
        self.write(rows, taken, &|_| true).map(Some)
    }

    /// Writes all rows anew that pass.
    pub fn retain(&self, pass: &dyn Fn(&Row) -> bool) -> io::Result<Change> {
        self.write(Vec::new(), self.runs.clone(), pass)
    }

    fn write(&self, rows: Vec<Row>, taken: Vec<Arc<Run>>, pass: &dyn Fn(&Row) -> bool) -> io::Result<Change> {
        let tag = super::random();
        let rows_max = rows.len() as u64 + taken.iter().map(|run| run.shape().rows).sum::<u64>();
        let mut writer = RunWriter::new(self.home.create_run(&tag)?, tag, rows_max);
        let old = taken.iter().map(|run| run.shape().tag).collect();
        let result = merge(rows, taken, |row| if pass(&row) { writer.push(row) } else { Ok(()) });
        let finished = result.and_then(|()| writer.finish(self.home.lasts()));
        let synced = finished.and_then(|run| self.home.sync().map(|()| run));
        if !matches!(synced, Ok(Some(_))) {
            self.home.remove_run(&tag);
        }
        Ok(Change { new: synced?.map(Arc::new), old })
    }

    /// The database has heard of it.
    pub fn apply(&mut self, change: Change) {
        self.runs.retain(|run| !change.old.contains(&run.shape().tag));
        self.runs.extend(change.new);
        self.sort();
        change.old.iter().for_each(|tag| self.home.remove_run(tag));
    }
}

/// Calls for all rows in order, each once.
fn merge(rows: Vec<Row>, runs: Vec<Arc<Run>>, mut each: impl FnMut(Row) -> io::Result<()>) -> io::Result<()> {
    let mut rows = rows.into_iter().peekable();
    let mut others = Vec::new();
    for run in runs {
        let mut rest = Rows::new(run);
        if let Some(first) = rest.next() {
            others.push((first?, rest));
        }
    }
    let mut before = None;
    loop {
        // Runs are few: looking at each is quicker than keeping them in order.
        let least = others.iter().enumerate().min_by_key(|(_, (row, _))| *row).map(|(at, (row, _))| (at, *row));
        let row = match (rows.peek().copied(), least) {
            (None, None) => return Ok(()),
            (Some(row), least) if least.is_none_or(|(_, other)| row <= other) => {
                rows.next();
                row
            }
            (_, Some((at, row))) => {
                match others[at].1.next().transpose()? {
                    Some(next) => others[at].0 = next,
                    None => drop(others.swap_remove(at)),
                }
                row
            }
            (Some(_), None) => unreachable!("then the row is the least"),
        };
        if before.replace(row) != Some(row) {
            each(row)?;
        }
    }
}
