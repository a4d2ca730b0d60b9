//! The pods of this node: one actor per pod, plans with undo, recovery, and the snapshot that lists read.
pub mod shim_client;
