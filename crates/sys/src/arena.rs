//! An allocator for a program whose copies live for milliseconds: they take memory from a piece that is theirs, and give nothing back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The system's allocator, until [`begin`] is called. From then on memory is cut off a piece that the kernel gave at once, and what is let go
/// of is used again only if it was the last: a process that ends soon has no time for more.
#[derive(Debug)]
pub struct Arena;

/// What the kernel is asked for at a time.
const PIECE: usize = 128 << 10;

static BEGUN: AtomicBool = AtomicBool::new(false);
static LOCKED: AtomicBool = AtomicBool::new(false);
/// What is left of the piece, from the first to behind the last.
static NEXT: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

/// Has this process, which ends soon, take its memory as [`Arena`] says, if that is the program's allocator. What it has already stays.
pub fn begin() {
    BEGUN.store(true, Ordering::Relaxed);
}

// SAFETY: memory is either the system's or cut off a piece by `take`, which under the lock gives no byte twice: `NEXT` only goes back over
// memory that its owner has just let go of. Nothing here panics or allocates.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !BEGUN.load(Ordering::Relaxed) {
            // SAFETY: our caller upholds the same contract.
            return unsafe { System.alloc(layout) };
        }
        locked(|| take(layout))
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        if !BEGUN.load(Ordering::Relaxed) {
            // SAFETY: before `begin` all memory is the system's; our caller upholds the rest.
            return unsafe { System.dealloc(old, layout) };
        }
        locked(|| {
            if is_last(old, layout.size()) {
                NEXT.store(old.addr(), Ordering::Relaxed);
            }
        });
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !BEGUN.load(Ordering::Relaxed) {
            // SAFETY: as in `dealloc`.
            return unsafe { System.realloc(old, layout, size) };
        }
        let in_place = locked(|| {
            let fits = is_last(old, layout.size()) && size <= END.load(Ordering::Relaxed) - old.addr();
            if fits {
                NEXT.store(old.addr() + size, Ordering::Relaxed);
            }
            fits
        });
        if in_place {
            return old;
        }
        // SAFETY: our caller says that the size, rounded up to the alignment, is no overflow.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: `new` was just cut off and is nobody else's; `old` has at least as many bytes as are copied.
            unsafe { ptr::copy_nonoverlapping(old, new, layout.size().min(size)) };
        }
        new
    }
}

/// Whether the memory is what was cut off last.
fn is_last(memory: *mut u8, size: usize) -> bool {
    size != 0 && memory.addr() + size == NEXT.load(Ordering::Relaxed)
}

/// Cuts memory off; null if the kernel gives none.
fn take(layout: Layout) -> *mut u8 {
    let cut = |next: usize, end: usize| {
        let start = next.checked_add(layout.align() - 1)? & !(layout.align() - 1);
        let behind = start.checked_add(layout.size())?;
        (behind <= end).then_some((start, behind))
    };
    if let Some((start, behind)) = cut(NEXT.load(Ordering::Relaxed), END.load(Ordering::Relaxed)) {
        NEXT.store(behind, Ordering::Relaxed);
        return ptr::with_exposed_provenance_mut(start);
    }
    let Some(wanted) = layout.size().checked_add(layout.align()) else { return ptr::null_mut() };
    let length = wanted.max(PIECE);
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // Given whole: to be given page by page, when each is touched, takes longer.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory that there is.
    let piece = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if piece == libc::MAP_FAILED {
        return ptr::null_mut();
    }
    let first = piece.expose_provenance();
    let Some((start, behind)) = cut(first, first + length) else { return ptr::null_mut() };
    NEXT.store(behind, Ordering::Relaxed);
    END.store(first + length, Ordering::Relaxed);
    ptr::with_exposed_provenance_mut(start)
}

/// Does `work` alone. Hardly ever does anybody wait: such processes have one thread, mostly.
fn locked<T>(work: impl FnOnce() -> T) -> T {
    while LOCKED.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
    let done = work();
    LOCKED.store(false, Ordering::Release);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The statics are the process's: one test is all of them.
    #[test]
    fn memory_is_nobody_elses_and_keeps_what_is_in_it() {
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        let fill = |at: *mut u8, size: usize, byte: u8| {
            // SAFETY: the allocator gave `size` bytes at `at`.
            unsafe { ptr::write_bytes(at, byte, size) }
        };
        let is_filled = |at: *mut u8, size: usize, byte: u8| {
            // SAFETY: they were written before.
            unsafe { std::slice::from_raw_parts(at, size) }.iter().all(|found| *found == byte)
        };
        // SAFETY: every piece of memory is let go of once, with the layout that it has.
        unsafe {
            let before = Arena.alloc(layout(100, 8));
            fill(before, 100, 1);
            begin();
            let kept: Vec<(*mut u8, Layout, u8)> = (0..2000usize)
                .map(|n| {
                    let layout = layout(n * 7 % 900 + 1, 1 << (n % 7));
                    let at = Arena.alloc(layout);
                    assert_eq!(at.addr() % layout.align(), 0);
                    fill(at, layout.size(), n as u8);
                    (at, layout, n as u8)
                })
                .collect();
            let large = Arena.alloc(layout(3 * PIECE, 4096));
            fill(large, 3 * PIECE, 7);
            assert!(kept.iter().all(|(at, layout, byte)| is_filled(*at, layout.size(), *byte)));
            let moved = Arena.realloc(before, layout(100, 8), 200);
            assert!(moved != before && is_filled(moved, 100, 1));
            let grown = Arena.realloc(moved, layout(200, 8), 300);
            assert_eq!(grown, moved, "the last one grows where it is");
            Arena.dealloc(grown, layout(300, 8));
            assert_eq!(Arena.alloc(layout(50, 1)), moved, "and is used again");
            let zeroed = Arena.alloc_zeroed(layout(64, 8));
            assert!(is_filled(zeroed, 64, 0));
            assert!(Arena.alloc(layout(isize::MAX as usize - 4096, 1)).is_null());
        }
    }
}
