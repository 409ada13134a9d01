//! stub
pub struct StreamSource;
