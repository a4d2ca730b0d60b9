//! The kernel edge: the system calls that the standard library and rustix do not offer safely, behind safe functions.
//!
//! This is the only crate with `unsafe`. Each block says which precondition it relies on and who upholds it. Descriptors cross every
//! boundary as `OwnedFd` and `BorrowedFd`; a path inside somebody else's root is always resolved by [`root::Root`].

pub mod arena;
pub mod bpf;
pub mod code;
pub mod file;
pub mod keyring;
pub mod loop_device;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod parent;
pub mod process;
pub mod program;
pub mod quota;
pub mod root;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod terminal;
pub mod turns;
pub mod users;
pub mod verity;
