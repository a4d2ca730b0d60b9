//! The container's cgroup.
use crate::error::{Failure, UpdateError};
use crate::record::Record;
use std::io;
use std::path::Path;

pub(crate) fn is_frozen(_record: &Record) -> bool {
    false
}
pub(crate) fn thaw(_record: &Record) -> io::Result<()> {
    Ok(())
}
pub(crate) fn signal_all(_record: &Record, _signal: i32) -> io::Result<usize> {
    Ok(0)
}
pub(crate) fn remove(_record: &Record) -> Result<(), Failure> {
    Ok(())
}
/// Freezes all processes of the container.
pub fn pause(_state_root: &Path, _id: &str) -> Result<(), UpdateError> {
    Ok(())
}
/// Thaws all processes of the container.
pub fn resume(_state_root: &Path, _id: &str) -> Result<(), UpdateError> {
    Ok(())
}
/// The pids of all processes of the container, as the caller's pid namespace numbers them.
pub fn processes(_state_root: &Path, _id: &str) -> Result<Vec<i32>, UpdateError> {
    Ok(Vec::new())
}
