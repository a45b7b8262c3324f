//! Keeps the memory small: gives back what only the start needed.

use std::ffi::c_char;

unsafe extern "C" {
    /// The first byte of the program, from the linker.
    safe static __executable_start: c_char;
    /// The first byte after its code, from the linker.
    safe static etext: c_char;
}

/// Has large blocks returned to the kernel when they are freed, and all threads share one heap. By default, glibc puts
/// blocks of the size of one that was freed into the heap, and each thread of the start would leave a heap behind.
pub fn limit_heap() {
    // SAFETY: it only sets parameters of malloc.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns freed memory to the kernel, and unmaps the pages of our own code and constants: most of them serve options,
/// libbpf and loading. Those that the loop needs come back from the page cache when they are next used.
pub fn release_memory() {
    const PAGE: usize = 4096;
    // SAFETY: it only returns memory that is not allocated.
    unsafe { libc::malloc_trim(0) };
    let start = &raw const __executable_start;
    let len = (&raw const etext).addr().saturating_sub(start.addr()) & !(PAGE - 1);
    // SAFETY: from the start of the program to the end of its code there are only private mappings of the executable
    // that are never written to (relocated constants follow the code), so the same bytes are read again.
    unsafe { libc::madvise(start.cast_mut().cast(), len, libc::MADV_DONTNEED) };
}
