//! stub
pub struct Local;
