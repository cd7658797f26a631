//! What secret code in Rust has in an enclave: a heap, an end for panics, random bytes. `cafe build` adds the types of the
//! project's headers, the type of every secret function (`NAME_fn`) and the callbacks, and compiles this as crate `cafe`.
#![no_std]
#![allow(
    dead_code,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals
)]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::panic::PanicInfo;

extern "C" {
    fn abort() -> !;
    fn malloc(bytes: usize) -> *mut c_void;
    fn calloc(count: usize, bytes: usize) -> *mut c_void;
    fn realloc(memory: *mut c_void, bytes: usize) -> *mut c_void;
    fn aligned_alloc(align: usize, bytes: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn getrandom(buffer: *mut c_void, bytes: usize, flags: u32) -> isize;
}

const MALLOC_ALIGN: usize = 16;

struct Heap;

// SAFETY: malloc and its kin keep GlobalAlloc's promises for alignments up to MALLOC_ALIGN, aligned_alloc for others.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MALLOC_ALIGN {
            return malloc(layout.size()) as *mut u8;
        }
        aligned_alloc(layout.align(), layout.pad_to_align().size()) as *mut u8
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= MALLOC_ALIGN {
            return calloc(1, layout.size()) as *mut u8;
        }
        let memory = self.alloc(layout);
        if !memory.is_null() {
            memory.write_bytes(0, layout.size());
        }
        memory
    }

    unsafe fn dealloc(&self, memory: *mut u8, _layout: Layout) {
        free(memory as *mut c_void);
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        if layout.align() <= MALLOC_ALIGN {
            return realloc(memory as *mut c_void, bytes) as *mut u8;
        }
        let fresh = self.alloc(Layout::from_size_align_unchecked(bytes, layout.align()));
        if !fresh.is_null() {
            fresh.copy_from_nonoverlapping(memory, layout.size().min(bytes));
            self.dealloc(memory, layout);
        }
        fresh
    }
}

#[global_allocator]
static HEAP: Heap = Heap;

/// Nothing of a panic's message leaves the enclave: it ends, and the caller gets CAFE_E_ABORT.
#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    unsafe { abort() }
}

/// Nothing unwinds: panics abort. The precompiled `alloc` names this all the same.
#[no_mangle]
extern "C" fn rust_eh_personality() {
    unsafe { abort() }
}

/// Fill `bytes` with random ones from the CPU; false if it has none to give now.
pub fn random(bytes: &mut [u8]) -> bool {
    unsafe { getrandom(bytes.as_mut_ptr() as *mut c_void, bytes.len(), 0) == bytes.len() as isize }
}
