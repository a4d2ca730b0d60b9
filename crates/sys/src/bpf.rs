//! bpf(2): loads, attaches and queries the device program of a cgroup v2.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;

const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// One eBPF instruction, laid out as the kernel's `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination register in the low four bits, source register in the high four.
    pub registers: u8,
    /// Offset of a jump or of a memory access.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

// The attributes end where the last field used ends; the kernel takes whatever it is not given as zero (bpf(2)).

#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replaced: u32,
}

#[repr(C)]
struct QueryAttributes {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

#[repr(C)]
struct ByIdAttributes {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Calls bpf(2) with attributes of type `T`.
///
/// # Safety
/// `attributes` must be laid out as the kernel's `union bpf_attr` is for `command`, and every address in it must be valid for what
/// the command does with it until this returns.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is a live exclusive reference of the size that is passed; the rest is the caller's promise above.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

/// A program of type `BPF_PROG_TYPE_CGROUP_DEVICE` in the kernel. It lives as long as this or an attachment of it.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

impl DeviceProgram {
    /// Verifies and loads `program`.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF` and `CAP_NET_ADMIN` or `CAP_SYS_ADMIN`; `EINVAL` when the verifier rejects it (what it said is
    /// in the error then) or the kernel lacks `CONFIG_CGROUP_BPF`.
    pub fn load(program: &[Instruction]) -> io::Result<DeviceProgram> {
        let attempt = |log: &mut [u8]| {
            let mut attributes = LoadAttributes {
                program_type: TYPE_CGROUP_DEVICE,
                instruction_count: program.len() as u32,
                instructions: program.as_ptr().expose_provenance() as u64,
                license: c"Apache-2.0".as_ptr().expose_provenance() as u64,
                log_level: u32::from(!log.is_empty()),
                log_size: log.len() as u32,
                log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
            };
            // SAFETY: LoadAttributes is the start of the PROG_LOAD variant. `instructions` has `instruction_count` live entries of
            // bpf_insn's layout, `license` is a static C string, and `log` is `log_size` writable bytes or null with size 0.
            unsafe { bpf(PROG_LOAD, &mut attributes) }
        };
        let error = match attempt(&mut []) {
            // SAFETY: PROG_LOAD answers with a descriptor just made for this caller.
            Ok(fd) => return Ok(DeviceProgram(unsafe { OwnedFd::from_raw_fd(fd) })),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EACCES)) => e,
            Err(e) => return Err(e),
        };
        let mut log = vec![0; 64 * 1024];
        if let Ok(fd) = attempt(&mut log) {
            // SAFETY: as above.
            return Ok(DeviceProgram(unsafe { OwnedFd::from_raw_fd(fd) }));
        }
        let said = log.split(|b| *b == 0).next().unwrap_or_default();
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(500)..]).trim().to_string();
        Err(io::Error::new(error.kind(), format!("{error}; the verifier says: {said}")))
    }
}

impl AsFd for DeviceProgram {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Attaches `program` to `cgroup`, beside others there (`BPF_F_ALLOW_MULTI`), or in the place of `replaced` at once.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: &DeviceProgram,
    replaced: Option<&DeviceProgram>,
) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.0.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, |p| p.0.as_raw_fd() as u32),
    };
    // SAFETY: AttachAttributes is the PROG_ATTACH variant; it holds no addresses, and its descriptors are borrowed for the call.
    unsafe { bpf(PROG_ATTACH, &mut attributes) }.map(drop)
}

/// Detaches `program` from `cgroup`.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: &DeviceProgram) -> io::Result<()> {
    let mut attributes = AttachAttributes {
        target: cgroup.as_raw_fd() as u32,
        program: program.0.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
        replaced: 0,
    };
    // SAFETY: as for attaching.
    unsafe { bpf(PROG_DETACH, &mut attributes) }.map(drop)
}

/// The device programs attached to `cgroup` itself, not those of its ancestors; at most 64 (the kernel's own limit).
pub fn device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<DeviceProgram>> {
    let mut ids = [0u32; 64];
    let mut attributes = QueryAttributes {
        target: cgroup.as_raw_fd() as u32,
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: ids.len() as u32,
        padding: 0,
    };
    // SAFETY: QueryAttributes is the PROG_QUERY variant; `ids` has `count` writable entries and lives past the call.
    unsafe { bpf(PROG_QUERY, &mut attributes) }?;
    let count = attributes.count as usize;
    let mut programs = Vec::with_capacity(count.min(ids.len()));
    for id in ids.iter().take(count) {
        let mut attributes = ByIdAttributes { id: *id, next_id: 0, open_flags: 0 };
        // SAFETY: ByIdAttributes is the PROG_GET_FD_BY_ID variant and holds no addresses.
        match unsafe { bpf(PROG_GET_FD_BY_ID, &mut attributes) } {
            // SAFETY: the answer is a descriptor just made for this caller.
            Ok(fd) => programs.push(DeviceProgram(unsafe { OwnedFd::from_raw_fd(fd) })),
            // Detached and gone since the query.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(programs)
}
