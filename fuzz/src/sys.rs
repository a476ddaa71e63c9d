//! An allocator that refuses large requests. libFuzzer's own `-malloc_limit_mb` needs a sanitizer to see allocations,
//! and the stable toolchain has none.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use crate::MAX_ALLOCATION;

/// The system's allocator up to [`MAX_ALLOCATION`]; a larger request fails, which aborts with its size.
pub(crate) struct Bounded;

// SAFETY: every request is either passed to the system's allocator unchanged or answered with null, as the contract
// of `GlobalAlloc` allows; no block is made or freed here.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this `layout`, as every block of this allocator does.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if new_size > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        // SAFETY: as for `dealloc`, and the caller's promise about `new_size` is passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
