//! The clocks of this host by which logins go.

use std::sync::LazyLock;
use std::time::SystemTime;

use adit_proto::login::token::{Boot, Clocks};
use data_encoding::HEXLOWER;

use super::logins::unix_seconds;
use crate::accounts::sqlite::{boot, seconds_since_boot};

/// The boot of this host: a random number with a few bits that are set (RFC 9562 section 4).
static BOOT: LazyLock<Boot> = LazyLock::new(|| {
    let told = boot().ok().and_then(|name| number_of(&name));
    if told.is_none() {
        tracing::error!("the kernel does not tell this boot of the host from others: nobody can log in");
    }
    told.map_or(Boot::UNTOLD, Boot::of)
});

/// What they say now.
pub(crate) fn now() -> Clocks {
    at(SystemTime::now())
}

/// What they say when the clock says `now`.
pub(crate) fn at(now: SystemTime) -> Clocks {
    let unix = unix_seconds(now);
    match seconds_since_boot() {
        Ok(since_boot) => Clocks { unix, since_boot: u64::try_from(since_boot).unwrap_or_default(), boot: *BOOT },
        Err(_untold) => Clocks { unix, since_boot: 0, boot: Boot::UNTOLD },
    }
}

/// The sixteen bytes that a UUID stands for.
fn number_of(name: &str) -> Option<[u8; 16]> {
    HEXLOWER.decode(name.replace('-', "").as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_since_the_boot_does_not_follow_the_clock() {
        let day = Duration::from_secs(24 * 60 * 60);
        let (right, ahead) = (now(), at(SystemTime::now() + 10 * day));
        assert!(ahead.unix - right.unix >= 10 * day.as_secs());
        assert!(ahead.since_boot - right.since_boot < 60 && right.since_boot > 0);
        assert!(right.boot == ahead.boot && right.boot.number().is_some());
    }

    #[test]
    fn boot_is_the_number_of_its_name() {
        let number = number_of("00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(number, Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]));
        assert_eq!((number_of(""), number_of("nonsense")), (None, None));
    }
}
