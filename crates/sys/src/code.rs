//! The pages of this program's own file that are mapped into the process.

use std::ffi::{c_int, c_void};

/// Unmaps all pages of the program's code and constants. They stay in the kernel's cache, and each comes back when it is touched, with its
/// neighbours. A program maps most of itself while it starts, and needs little of it later.
pub fn unmap() {
    let mut segments: Vec<(usize, usize)> = Vec::new();
    // SAFETY: the callback gets the pointer to `segments`, which outlives the call, and nobody else has it.
    unsafe { libc::dl_iterate_phdr(Some(of_program), (&raw mut segments).cast()) };
    let page = rustix::param::page_size();
    for (start, length) in segments {
        let first = start / page * page;
        let length = (start + length).next_multiple_of(page) - first;
        // SAFETY: the segment may not be written, so that each of its pages is as in the file, and is read from there again.
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(first), length, libc::MADV_DONTNEED) };
    }
}

/// Collects the segments of the first object, the program itself, that may not be written. What is made read-only only after it was
/// relocated (`PT_GNU_RELRO`) is a part of one that may.
unsafe extern "C" fn of_program(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    found: *mut c_void,
) -> c_int {
    // SAFETY: the loader passes a valid description, whose headers stay as long as the object is loaded; `found` is the vector of `unmap`.
    let (object, found, headers) = unsafe {
        let object = &*object;
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum));
        (object, &mut *found.cast::<Vec<(usize, usize)>>(), headers)
    };
    let relocates_code = headers.iter().any(|header| {
        header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W != 0 && header.p_flags & libc::PF_X != 0
    });
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && !relocates_code) {
        if header.p_flags & libc::PF_W == 0 {
            found.push((object.dlpi_addr as usize + header.p_vaddr as usize, header.p_memsz as usize));
        }
    }
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_program_goes_on_without_its_pages() {
        let mapped = || -> u64 {
            let program = std::fs::read_link("/proc/self/exe").unwrap();
            let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut own = false;
            let rss = text.lines().filter_map(|line| {
                if line.contains(" r-xp ") || line.contains(" rw-p ") || line.contains(" r--p ") {
                    own = line.contains(" r-xp ") && line.ends_with(program.to_str()?);
                }
                let number = line.strip_prefix("Rss:").filter(|_| own)?;
                number.split_whitespace().next()?.parse::<u64>().ok()
            });
            rss.sum()
        };
        let before = mapped();
        super::unmap();
        let now = mapped();
        assert!(now < before, "{now} kB of {before} kB");
        assert_eq!(format!("{:?}", [1.5, 2.0]), "[1.5, 2.0]");
    }
}
