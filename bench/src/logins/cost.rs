//! What a login costs above the hash of its password, while the gateway has nothing else to do.

use std::time::Instant;

use adit_server::sources::local::passwords::{self, Match, Memory};
use anyhow::{Result, ensure};
use serde::Serialize;

use super::plan;
use super::site::{PASSWORD, Site, WITH_DEVICE, password};
use crate::load::histogram::{Histogram, Percentiles};

/// Times of logins and of the hash alone, taken in turns.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Cost {
    /// A login over the wire: two requests, each on a connection of its own, as the native client has them.
    pub(super) login_ms: Percentiles,
    /// A login with the program `adit-client`, from its start to its end.
    pub(super) program_ms: Percentiles,
    /// The hash of the password alone.
    pub(super) hash_ms: Percentiles,
}

impl Cost {
    /// What the median login over the wire takes above the median hash, in milliseconds.
    pub(super) fn login_above(&self) -> f64 {
        self.login_ms.p50 - self.hash_ms.p50
    }

    /// The same of the program.
    pub(super) fn program_above(&self) -> f64 {
        self.program_ms.p50 - self.hash_ms.p50
    }
}

/// Measures so many of each.
///
/// # Errors
/// If a login fails, or when `check` does.
pub(super) fn measure(site: &Site, pairs: u32, check: &dyn Fn() -> Result<()>) -> Result<Cost> {
    let [logins, programs, hashes] = [(); 3].map(|()| Histogram::default());
    let mut memory = Memory::default();
    let mut hash = || -> Result<()> {
        let began = Instant::now();
        let matched = passwords::compare(&password(), Some(&site.kept), passwords::Cost::USUAL, &mut memory);
        hashes.note(began.elapsed());
        ensure!(matched == Match::Right, "the kept hash is not that of the password");
        Ok(())
    };
    for _ in 0..pairs {
        check()?;
        let door = site.with_device.clone();
        let login = async move { door.log_in(plan::ON_THE_WAY, WITH_DEVICE, PASSWORD).await };
        logins.note(site.users.block_on(crate::runtime::on(&site.users, login))??);
        hash()?;
        programs.note(site.log_in_by_program()?);
        hash()?;
    }
    let [login_ms, program_ms, hash_ms] = [logins, programs, hashes].map(|times| times.percentiles());
    Ok(Cost { login_ms, program_ms, hash_ms })
}
