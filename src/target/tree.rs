//! stub
pub struct TreeTarget;
pub struct FileWriter;
pub struct Found;
