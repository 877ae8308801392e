//! Whether a device comes with a login of its user that lasts.

use adit_proto::login::token::TokenError;

use super::sealed::Tokens;
use super::{Identity, LastingLogin, LoginError, clocks};
use crate::accounts::{Accounts, AuthError, StoreFault};

/// Why a device that needs a login may not connect, in words for its user.
const NONE: &str = "this device needs a login of its user";
const OVER: &str = "the login of this device's user is over";
pub(crate) const VOID: &str =
    "the login of this device's user was ended by the administrator, or is none of this gateway's";

/// Looks at the session token that a device came with, if it needs one; says until when it is good. Blocks.
///
/// # Errors
/// [`LoginError::Needed`]; [`LoginError::Refused`] if the accounts cannot be read.
pub(in crate::core) fn check(
    accounts: &dyn Accounts,
    tokens: Option<&Tokens>,
    identity: Identity,
    token: Option<&str>,
) -> Result<Identity, LoginError> {
    let failed = |error| LoginError::Refused(AuthError::Store(error));
    let device = &identity.device;
    if !accounts.needs_login(&device.id).map_err(failed)? {
        return Ok(identity);
    }
    let (Some(token), Some(tokens)) = (token, tokens) else { return Err(LoginError::Needed(NONE)) };
    let clocks = clocks::now();
    let token = tokens.open(token, Some(&device.id), &clocks).map_err(|error| {
        LoginError::Needed(match error {
            TokenError::Over => OVER,
            TokenError::Foreign | TokenError::OtherDevice => VOID,
        })
    })?;
    if token.user != device.user || !is_of_now(accounts, &device.user, token.generation).map_err(failed)? {
        return Err(LoginError::Needed(VOID));
    }
    let login = LastingLogin { end: token.end(&clocks), generation: token.generation };
    Ok(Identity { login: Some(login), ..identity })
}

/// Whether logins of this generation of a user still count. Blocks.
///
/// # Errors
/// The accounts could not be read.
pub(in crate::core) fn is_of_now(accounts: &dyn Accounts, user: &str, generation: u64) -> Result<bool, StoreFault> {
    Ok(accounts.person(user)?.is_some_and(|known| known.generation == generation))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use adit_proto::login::token::{LoginEnd, SessionToken};

    use super::*;
    use crate::accounts::UserName;
    use crate::accounts::sqlite::Store;
    use crate::core::login::logins::Logins;
    use crate::directories::StateDir;
    use crate::identity::{DeviceCertificate, ServiceKey};

    struct World {
        _directory: tempfile::TempDir,
        store: Arc<Store>,
        logins: Logins,
        identity: Identity,
    }

    impl World {
        /// A gateway with a device of alice that was enrolled by a login.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let store = Arc::new(Store::create(&directory.path().join("store.db")).unwrap());
            let key = ServiceKey::load_or_create(&StateDir::new(directory.path())).unwrap();
            let logins = Logins::new(Vec::new(), Arc::clone(&store), &key, [7; 32], Duration::from_secs(3600));
            let (alice, now) = (UserName::parse("alice").unwrap(), SystemTime::now());
            store.invite(&alice, Duration::from_secs(60), now).unwrap();
            let sign = |_: &str, _: &str| {
                let not_after = now + Duration::from_secs(3600);
                Ok::<_, std::convert::Infallible>(DeviceCertificate {
                    pem: String::new(),
                    serial: "01".into(),
                    not_after,
                })
            };
            let enrolled = store.enroll_by_login((&alice, &[1; 16]), &[2; 32], "laptop", now, sign).unwrap();
            let identity = Identity { device: enrolled.device, login: None };
            Self { _directory: directory, store, logins, identity }
        }

        /// A token that is good for so many seconds.
        fn token(&self, device: &str, generation: u64, lifetime: u64) -> String {
            let (user, device, methods) = ("alice".to_owned(), Some(device.to_owned()), Vec::new());
            let clocks = clocks::now();
            // The clock was wrong when it was given, which does not matter.
            let logged_in_at = clocks.unix - 10 * 24 * 60 * 60;
            let (boot, since_boot) = (clocks.boot, clocks.since_boot);
            let ends_at = logged_in_at + lifetime;
            let token = SessionToken { user, device, generation, methods, logged_in_at, ends_at, boot, since_boot };
            self.logins.tokens().seal(&token).unwrap()
        }

        fn check(&self, token: Option<&str>) -> Result<(), String> {
            let checked = check(&*self.store, Some(self.logins.tokens()), self.identity.clone(), token);
            let end = checked.map_err(|error| error.to_string())?.login.map(|login| login.end);
            let left = end.map(|end| end.left(&clocks::now()).as_secs());
            assert!(matches!(end, Some(LoginEnd::SinceBoot(_))) && left.is_some_and(|left| left <= 60), "{end:?}");
            Ok(())
        }
    }

    #[test]
    fn login_of_the_device_lasts_until_its_end_and_until_its_user_is_disabled() {
        let world = World::new();
        let (device, soon) = (world.identity.device.id.clone(), 60);
        assert_eq!(world.check(None).unwrap_err(), NONE);
        assert_eq!(world.check(Some(&world.token(&device, 0, soon))), Ok(()));
        assert_eq!(world.check(Some(&world.token(&device, 0, 0))).unwrap_err(), OVER);
        for void in [world.token("dev-other", 0, soon), world.token(&device, 1, soon), "nonsense".to_owned()] {
            assert_eq!(world.check(Some(&void)).unwrap_err(), VOID);
        }
        let alice = UserName::parse("alice").unwrap();
        world.store.set_disabled(&alice, true, SystemTime::now()).unwrap();
        world.store.set_disabled(&alice, false, SystemTime::now()).unwrap();
        assert_eq!(world.check(Some(&world.token(&device, 0, soon))).unwrap_err(), VOID, "void for ever");
        assert_eq!(world.check(Some(&world.token(&device, 1, soon))), Ok(()));
    }

    #[test]
    fn gateway_without_logins_lets_no_device_in_that_needs_one() {
        let world = World::new();
        let token = world.token(&world.identity.device.id, 0, 60);
        let checked = check(&*world.store, None, world.identity.clone(), Some(&token));
        assert!(matches!(checked, Err(LoginError::Needed(NONE))));
    }
}
