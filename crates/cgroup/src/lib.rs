//! Control groups, version 1 and 2: creating, limiting, measuring, freezing, killing and removing them.
//!
//! [`Host`] is found once; [`Cgroup`] is one group with its directories open. Which version it is shows in two modules only, `v1`
//! and `v2`; that systemd makes groups shows in `systemd`. A path is given once; after that every file is reached through a directory descriptor.

mod change;
mod convert;
mod devices;
mod directory;
mod driver;
mod error;
mod group;
mod host;
mod meter;
mod path;
mod raw;
mod stats;
pub mod systemd;
mod v1;
mod v2;

pub use driver::Driver;
pub use error::{ApplyError, CgroupError, DetectError, Warning};
pub use group::{Cgroup, Entrance};
pub use host::{Controller, Host, Mode, tell_mounts};
pub use meter::Meter;
pub use stats::{
    CpuStats, DeviceIo, HugetlbStats, IoStats, MemoryDetail, MemoryStats, PidsStats, Pressure, PressureLine,
    Stalls, Stats, Usage,
};
