//! Gives free memory back to the system.
//!
//! glibc keeps freed memory that lies between blocks in use. After a crowd of sessions that is most of what they took.

/// Gives the pages of free memory back. Walks all of the heap, which may take milliseconds; meanwhile other threads may
/// wait for memory.
///
/// Only glibc's allocator needs that; with any other it does nothing.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: malloc_trim(3) takes any padding, may be called by any thread at any time, and leaves every block in
        // use as it is.
        #[expect(unsafe_code, reason = "a call of the C library that no crate wraps")]
        let _some_was_given = unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(target_env = "gnu")]
#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Bytes of this process in memory.
    fn resident() -> usize {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
        pages * nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap() as usize
    }

    #[test]
    fn memory_between_blocks_in_use_is_given_back() {
        const BLOCK: usize = 8 * 1024;
        const BLOCKS: usize = 8 * 1024;
        let all: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![1; BLOCK]).collect();
        // One in 64 stays, so that the allocator finds no end of its heap to cut.
        let kept: Vec<_> = all.into_iter().step_by(64).collect();
        let before = resident();
        give_back();
        let given = before.saturating_sub(resident());
        // What other tests take meanwhile is far less than the rest of a quarter.
        assert!(given > BLOCKS * BLOCK * 3 / 4, "{given} bytes of {} were given back", BLOCKS * BLOCK);
        assert!(kept.iter().flatten().all(|&byte| byte == 1));
    }
}
