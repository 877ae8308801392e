//! How a gateway that restarts tells its clients when it is back: by the error code with which it closes their QUIC
//! connections.
//!
//! The code is none of HTTP/3's, so whoever does not know it takes it for "no error" (RFC 9114 section 9), which is
//! what the end of a gateway is to a standard client.
//!
//! ```text
//! 0x616469740000 ("adit" in front of sixteen bits) plus the seconds until it is back
//! ```

use std::time::Duration;

/// The code of no time at all.
const BASE: u64 = 0x6164_6974 << 16;

/// Longest time that can be told.
pub const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The code that says so; of a longer time than [`LONGEST`] it says that.
#[must_use]
pub fn close_code(back_in: Duration) -> u64 {
    BASE | back_in.min(LONGEST).as_secs()
}

/// What a code says, if it is one of these.
#[must_use]
pub fn back_in(code: u64) -> Option<Duration> {
    let seconds = code.checked_sub(BASE)?;
    (seconds <= LONGEST.as_secs()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::varint;

    #[test]
    fn time_is_told_in_seconds_up_to_an_hour() {
        for seconds in [0, 1, 30, 3600] {
            let time = Duration::from_secs(seconds);
            assert_eq!(back_in(close_code(time)), Some(time));
        }
        assert_eq!(back_in(close_code(Duration::MAX)), Some(LONGEST));
        assert!(close_code(LONGEST) <= varint::MAX);
    }

    #[test]
    fn other_codes_say_nothing() {
        for code in [0, 0x100, 0x10f, BASE - 1, close_code(LONGEST) + 1, varint::MAX] {
            assert_eq!(back_in(code), None, "{code:#x}");
        }
    }
}
