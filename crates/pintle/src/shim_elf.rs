//! The shim as its own small executable, carried inside this one.

/// The static ELF file of `pintle-shim`, in a release; `None` in a build by hand, where the daemon starts itself as the shim instead.
pub const SHIM_ELF: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/shim_elf.rs"));
