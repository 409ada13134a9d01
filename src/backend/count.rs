//! stub
pub struct Counting;
pub struct Calls;
