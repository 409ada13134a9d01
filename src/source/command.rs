//! stub
pub struct CommandSource;
