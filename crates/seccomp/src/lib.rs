//! Compiles an OCI seccomp profile to a classic BPF program. Pure: the kernel is given the program by `sys`.
//!
//! The semantics are those that runc with libseccomp gives a profile, so that a profile means the same under both; the program is
//! a binary tree over call numbers instead of a list, because it runs on every system call.

mod abi;
mod compile;
mod default;
mod error;
mod program;
mod rules;

pub use abi::Architecture;
pub use compile::{Filter, Flags, compile};
pub use default::{KernelVersion, default_profile};
pub use error::CompileError;
pub use program::{Instruction, MAX_INSTRUCTIONS};
