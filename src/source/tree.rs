//! stub
pub struct TreeOptions;
pub struct TreeSource;
