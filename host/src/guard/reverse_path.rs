//! The check that answers to a packet's source would leave by the link it came in by (`rp_filter`).
//!
//! The kernel applies the larger of a link's own value and that of `all`: 0 is no check, 1 strict, 2 loose.

use std::time::Instant;

use super::Found;
use crate::changes::HostChanges;
use crate::error::HostError;
use crate::sysctl;

const ALL: &str = "net.ipv4.conf.all.rp_filter";
const STRICT: &str = "1";
const LOOSE: &str = "2";

impl HostChanges {
    /// Has the host accept packets whose source it reaches by any link, where some link is stricter, now or later. A
    /// strict check looks routes up without marks: where policy rules tell marked packets apart, it drops answers.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn loosen_reverse_paths(&mut self) -> Result<(), HostError> {
        self.loose_reverse_paths = true;
        if some_link_is_strict()? { self.set_sysctl(ALL, LOOSE).await } else { Ok(()) }
    }

    pub(super) async fn hold_reverse_paths(&mut self, now: Instant) {
        if !self.loose_reverse_paths {
            return;
        }
        let guard = "reverse path filter";
        let found = match some_link_is_strict() {
            Ok(false) => Found::Right,
            Ok(true) => Found::Wrong("was made strict".to_owned()),
            Err(error) => Found::unknown(&error),
        };
        if self.history.must_mend(guard, found, now) {
            let done = self.set_sysctl(ALL, LOOSE).await;
            self.history.mended(guard, done, now);
        }
    }
}

fn some_link_is_strict() -> Result<bool, HostError> {
    if sysctl::read(ALL)? == LOOSE {
        return Ok(false);
    }
    // `default` counts too: links to come inherit it.
    let links = sysctl::names("net/ipv4/conf")?;
    // A link that has just gone checks nothing.
    let own = |link: &String| sysctl::read(&format!("net/ipv4/conf/{link}/rp_filter"));
    Ok(links.iter().any(|link| own(link).is_ok_and(|value| value == STRICT)))
}
