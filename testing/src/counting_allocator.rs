//! The system's allocator, and how often it was asked for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

/// An allocator that counts. A test or benchmark that wants to count makes it the allocator of its whole process:
///
/// ```
/// use adit_testing::counting_allocator::{CountingAllocator, allocations};
///
/// #[global_allocator]
/// static ALLOCATOR: CountingAllocator = CountingAllocator;
///
/// fn main() {
///     let before = allocations();
///     let kept = vec![1, 2, 3];
///     assert!(allocations() > before, "{kept:?}");
/// }
/// ```
pub struct CountingAllocator;

#[expect(
    unsafe_code,
    reason = "the trait of allocators is unsafe; this crate is only for tests, so no program has this code"
)]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Returns how often memory was asked for so far, by all threads of the process; 0 without [`CountingAllocator`] in
/// use.
pub fn allocations() -> usize {
    ALLOCATIONS.load(Ordering::SeqCst)
}
