//! What a frame is still good for where it lies: for those who judge packs, and do not only want bytes.

use super::reader::{Bases, Reader};
use crate::crypto::SealKey;
use crate::error::{Error, Result};
use crate::format::envelope::Kind;
use crate::format::frame::FrameRecord;

/// What a frame is still good for.
pub enum Health {
    /// Every chunk of it was verified. These are its compressed bytes.
    Good(Vec<u8>),
    /// Its bytes are as they were sealed, but what they are based on is not there now.
    Baseless(Vec<u8>),
    Broken,
}

impl Reader {
    /// Looks at a frame's box. A base is looked for everywhere.
    pub fn health(&self, key: &(Kind, SealKey), record: &FrameRecord, sealed: &[u8]) -> Result<Health> {
        let associated_data = record.seal_info().associated_data(&self.locator().repository(), key.0);
        let Some(compressed) = key.1.open(&associated_data, sealed) else { return Ok(Health::Broken) };
        if self.locator().keys().frame_id(&record.table) != record.id {
            return Ok(Health::Broken);
        }
        match self.decode(key, record, sealed) {
            Ok(_) => return Ok(Health::Good(compressed)),
            // Of a base, too, whose pack looks like one of a newer version.
            Err(error) if error.is_damage() || matches!(error, Error::Unsupported { .. }) => {}
            Err(error) => return Err(error),
        }
        let is_baseless = record.base.as_ref().is_some_and(|base| self.prefix(base, Bases::Any).is_err());
        Ok(if is_baseless { Health::Baseless(compressed) } else { Health::Broken })
    }
}
