//! How long a thread's turns on a processor are. The kernel lets a thread that wakes and takes short turns interrupt one that takes longer
//! ones (Linux 6.12 and later, sched_setattr(2): `sched_runtime` of a thread of SCHED_OTHER). Its share of the processor stays the same.
//! Older kernels take the value and do not use it.

use std::io;
use std::time::Duration;

/// Short enough to be let in before threads with the kernel's usual turns of some milliseconds; the least that the kernel takes.
const SHORT: Duration = Duration::from_micros(100);

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
    set(SHORT.as_nanos() as u64).map(drop)
}

/// While it lives, its thread has the kernel's usual turns: for long work on a thread that otherwise answers soon.
#[derive(Debug)]
pub struct Usual {
    /// Nanoseconds; none: they could not be changed.
    before: Option<u64>,
    // It is about the thread that made it.
    _here: std::marker::PhantomData<*const ()>,
}

impl Usual {
    pub fn begin() -> Usual {
        Usual { before: set(0).ok(), _here: std::marker::PhantomData }
    }
}

impl Drop for Usual {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // What was in force a moment ago is allowed; and nothing but speed depends on it.
            let _ = set(before);
        }
    }
}

/// Sets how many nanoseconds a turn of this thread lasts, 0 being the kernel's choice, and returns what it was.
fn set(nanoseconds: u64) -> io::Result<u64> {
    let mut attributes = read()?;
    let before = std::mem::replace(&mut attributes.runtime, nanoseconds);
    attributes.size = SIZE;
    // SAFETY: the kernel reads `size` bytes of a struct that outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if done == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
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
    fn turns_are_a_threads_own_and_come_back() {
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
            let usual = Usual::begin();
            assert_ne!(read().unwrap().runtime, short);
            drop(usual);
            assert_eq!(read().unwrap().runtime, short);
            let elsewhere = std::thread::spawn(|| {
                let _usual = Usual::begin();
                read().unwrap().runtime
            });
            assert_ne!(elsewhere.join().unwrap(), short);
            assert_eq!(read().unwrap().runtime, short);
        })
        .join()
        .unwrap();
    }
}
