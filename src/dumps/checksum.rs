//! The checksums that formats have in them.

use crc::{Algorithm, Crc, Digest, Table};

pub type Digest32 = Digest<'static, u32, Table<16>>;
pub type Digest64 = Digest<'static, u64, Table<16>>;

/// Tables for sixteen bytes at a time.
const fn crc64(algorithm: &'static Algorithm<u64>) -> Crc<u64, Table<16>> {
    Crc::<u64, Table<16>>::new(algorithm)
}

const fn crc32(algorithm: &'static Algorithm<u32>) -> Crc<u32, Table<16>> {
    Crc::<u32, Table<16>>::new(algorithm)
}

/// Of Redis; by Jones.
static REDIS: Crc<u64, Table<16>> = crc64(&crc::CRC_64_REDIS);
/// What Go calls ECMA.
static ECMA: Crc<u64, Table<16>> = crc64(&crc::CRC_64_XZ);
/// Of gzip and xz.
static PLAIN: Crc<u32, Table<16>> = crc32(&crc::CRC_32_ISO_HDLC);
/// CRC-32C.
static CASTAGNOLI: Crc<u32, Table<16>> = crc32(&crc::CRC_32_ISCSI);

pub fn redis() -> Digest64 {
    REDIS.digest()
}

pub fn ecma() -> Digest64 {
    ECMA.digest()
}

pub fn plain() -> Digest32 {
    PLAIN.digest()
}

pub fn castagnoli() -> Digest32 {
    CASTAGNOLI.digest()
}
