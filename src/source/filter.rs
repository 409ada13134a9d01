//! stub
pub struct Filter;
pub struct FilterRules;
