//! How long a thread's turns on a processor are, and how many it gets. The kernel lets a thread that wakes and takes short turns interrupt one that takes longer
//! ones (Linux 6.12 and later, sched_setattr(2): `sched_runtime` of a thread of SCHED_OTHER). Its share of the processor stays the same.
//! Older kernels take the value and do not use it.

use std::io;
use std::time::Duration;

/// Short enough to be let in before threads with the kernel's usual turns of some milliseconds; the least that the kernel takes.
const SHORT: Duration = Duration::from_micros(100);

/// The nice value of a thread that gives way (sched(7): each step is a factor of 1.25).
const GIVES_WAY: i32 = 10;

/// `struct sched_attr` in its first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;

/// Gives this thread short turns from now on: for threads that answer somebody and soon sleep again.
pub fn take_short() -> io::Result<()> {
    change(|attributes| attributes.runtime = SHORT.as_nanos() as u64)
}

/// From now on this thread has the kernel's usual turns and a ninth of the weight of others where there are not processors for all: for
/// long work that nobody waits for by the millisecond. There is no way back without a privilege, so it is for threads that end with that work.
pub fn give_way() -> io::Result<()> {
    change(|attributes| {
        attributes.runtime = 0;
        attributes.nice = attributes.nice.max(GIVES_WAY);
    })
}

fn change(what: impl FnOnce(&mut Attributes)) -> io::Result<()> {
    let mut attributes = read()?;
    what(&mut attributes);
    attributes.size = SIZE;
    // SAFETY: the kernel reads `size` bytes of a struct that outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read() -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes at most the given number of bytes, the size of the struct, which is valid for all bit patterns.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, SIZE, 0) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_a_threads_own() {
        std::thread::spawn(|| {
            let at_first = read().unwrap().runtime;
            take_short().unwrap();
            let short = read().unwrap().runtime;
            // Kernels before 6.12 do not tell.
            if short == at_first {
                println!("SKIPPED: this kernel's turns are all alike");
                return;
            }
            assert_eq!(short, SHORT.as_nanos() as u64);
            let elsewhere = std::thread::spawn(|| {
                give_way().unwrap();
                let found = read().unwrap();
                (found.runtime, found.nice)
            });
            let (runtime, nice) = elsewhere.join().unwrap();
            assert_ne!(runtime, SHORT.as_nanos() as u64);
            assert_eq!(nice, GIVES_WAY);
            let here = read().unwrap();
            assert_eq!((here.runtime, here.nice), (short, 0));
        })
        .join()
        .unwrap();
    }
}
