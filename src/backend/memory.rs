//! stub
pub struct Memory;
