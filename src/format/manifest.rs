//! The manifest: what is true of the whole repository, sealed, as JSON.

use super::{FormatError, Result, from_json, to_json};
use crate::id::RepositoryId;
use crate::limits::*;

/// Which cutter makes the chunks, with its sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ChunkerParameters {
    /// `fastcdc-v2020-keyed`: FastCDC v2020, normalization 1, a gear table derived from the master key.
    pub id: String,
    pub min: u32,
    pub avg: u32,
    pub max: u32,
}

/// The name of the one cutter of format 1.
pub const FASTCDC: &str = "fastcdc-v2020-keyed";

impl Default for ChunkerParameters {
    fn default() -> Self {
        Self { id: FASTCDC.into(), min: CHUNK_BYTES_MIN as u32, avg: CHUNK_BYTES_AVG as u32, max: CHUNK_BYTES_MAX as u32 }
    }
}

/// The contents of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    pub version: u16,
    pub repository: RepositoryId,
    pub created: jiff::Timestamp,
    pub chunker: ChunkerParameters,
    /// What a reader must understand to read this repository; none in format 1.
    #[serde(default)]
    pub features: Vec<String>,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        to_json(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = from_json(bytes)?;
        if manifest.version > FORMAT_VERSION {
            return Err(FormatError::Unknown { what: "format version", value: manifest.version.into() });
        }
        if let Some(feature) = manifest.features.first() {
            return Err(FormatError::Newer(format!("feature {feature}")));
        }
        let sizes = &manifest.chunker;
        let powers = [sizes.min, sizes.avg, sizes.max].iter().all(|size| size.is_power_of_two());
        let ordered = 256 <= sizes.min && sizes.min < sizes.avg && sizes.avg < sizes.max;
        if sizes.id != FASTCDC || !powers || !ordered || sizes.max as usize > CHUNK_BYTES_MAX {
            return Err(FormatError::Newer(format!("chunker {} {}/{}/{}", sizes.id, sizes.min, sizes.avg, sizes.max)));
        }
        Ok(manifest)
    }
}
