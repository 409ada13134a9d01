//! stub
use super::*;
#[derive(Default)]
pub struct TreeOptions { pub filter: Filter, pub one_file_system: bool, pub xattrs: bool }
pub struct TreeSource;
impl TreeSource { pub fn new(_: Vec<std::path::PathBuf>, _: TreeOptions, _: Lookup, _: std::sync::Arc<std::sync::atomic::AtomicBool>) -> error::Result<Self> { Ok(Self) } }
impl Source for TreeSource { fn fill(&mut self, _: &mut Slab) -> error::Result<More> { Ok(More::No) } }
