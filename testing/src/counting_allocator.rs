//! The system's allocator, and how often it was asked for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::eventually;

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

/// Waits until every other thread of the process sleeps: the one that began a test may have something to do for it
/// still, and what that asks for would be counted.
///
/// # Panics
/// If one of them never sleeps.
pub fn await_quiet() {
    // A link to PID/task/TID (proc(5)).
    let own = fs::read_link("/proc/thread-self").expect("the system has /proc");
    let own = own.file_name().expect("it ends in the thread's number");
    eventually("all other threads sleep", || {
        let threads = fs::read_dir("/proc/self/task").expect("the system has /proc").flatten();
        let mut others = threads.filter(|thread| thread.file_name() != own);
        others
            .all(|thread| is_asleep(&fs::read_to_string(thread.path().join("stat")).unwrap_or_default()))
            .then_some(())
    });
}

/// Whether a thread sleeps, by its line of `stat`: the state follows a name that may hold anything (proc_pid_stat(5)).
fn is_asleep(stat: &str) -> bool {
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_of_a_thread_follows_its_name() {
        assert!(is_asleep("7 (a) R b) S 1 7"));
        assert!(!is_asleep("7 (S) R 1 7") && !is_asleep(""));
    }
}
