//! Whether a device comes with a login of its user that lasts, and which device a login has that comes alone.

use std::time::SystemTime;

use adit_proto::login::token::{Clocks, SessionToken, TokenError};

use super::sealed::Tokens;
use super::{Identity, LastingLogin, LoginError, clocks};
use crate::accounts::{Accounts, AuthError, ClientLogin, StoreFault};

/// Why a device that needs a login may not connect, in words for its user.
const NONE: &str = "this device needs a login of its user";
const OVER: &str = "the login of this device's user is over";
pub(crate) const VOID: &str = "the login of this device's user was ended, or this gateway does not know it";

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
    let token = tokens.open(token, Some(&device.id), &clocks).map_err(needed)?;
    let known = accounts.person(&device.user).map_err(failed)?;
    if token.user != device.user || known.is_none_or(|known| known.generation != token.generation) {
        return Err(LoginError::Needed(VOID));
    }
    let login = lasting(accounts, &token, &clocks)?;
    Ok(Identity { login: Some(login), ..identity })
}

/// The login of a token, if it lasts by what the accounts know of it.
fn lasting(accounts: &dyn Accounts, token: &SessionToken, clocks: &Clocks) -> Result<LastingLogin, LoginError> {
    let left = accounts.login_left(&token.login).map_err(|error| LoginError::Refused(AuthError::Store(error)))?;
    let login = LastingLogin::of(token, clocks, left.ok_or(LoginError::Needed(VOID))?);
    if login.end.left(clocks).is_zero() { Err(LoginError::Needed(OVER)) } else { Ok(login) }
}

/// Whether a login of a user still counts. Blocks.
///
/// # Errors
/// The accounts could not be read.
pub(in crate::core) fn is_of_now(
    accounts: &dyn Accounts,
    user: &str,
    login: &LastingLogin,
) -> Result<bool, StoreFault> {
    let known = accounts.person(user)?;
    Ok(known.is_some_and(|known| known.generation == login.generation) && accounts.login_left(&login.id)?.is_some())
}

fn needed(error: TokenError) -> LoginError {
    LoginError::Needed(match error {
        TokenError::Over => OVER,
        TokenError::Foreign | TokenError::OtherDevice => VOID,
    })
}

/// Finds the device of a login that began without one, by its session token alone; `is_live` says which devices have a
/// session. A new device is called `name`. Blocks.
///
/// # Errors
/// [`LoginError::Needed`] if the login is over or was ended; [`LoginError::Refused`] if the device or its user may not
/// connect, or the accounts fail.
pub(in crate::core) fn device_of(
    accounts: &dyn Accounts,
    tokens: Option<&Tokens>,
    (token, name): (&str, &str),
    is_live: &dyn Fn(&str) -> bool,
) -> Result<Identity, LoginError> {
    let failed = |error| LoginError::Refused(AuthError::Store(error));
    let clocks = clocks::now();
    let opened = tokens.ok_or(LoginError::Needed(VOID))?.open(token, None, &clocks).map_err(needed)?;
    let known = accounts.person(&opened.user).map_err(failed)?.ok_or(LoginError::Needed(VOID))?;
    if opened.generation != known.generation {
        return Err(LoginError::Needed(VOID));
    }
    if known.is_disabled {
        return Err(LoginError::Refused(AuthError::Disabled));
    }
    let login = lasting(accounts, &opened, &clocks)?;
    let client = ClientLogin { id: &opened.login, user: &opened.user, device_name: name };
    let device = accounts.device_of_login(&client, is_live, SystemTime::now())?;
    let device = device.ok_or(LoginError::Needed(VOID))?;
    if device.revoked_at.is_some() {
        return Err(LoginError::Refused(AuthError::Revoked));
    }
    Ok(Identity { device, login: Some(login) })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use adit_proto::login::token::{Boot, LoginEnd, LoginId};

    use super::*;
    use crate::accounts::sqlite::Store;
    use crate::accounts::{BegunLogin, UserName};
    use crate::core::login::logins::Logins;
    use crate::directories::StateDir;
    use crate::identity::{DeviceCertificate, ServiceKey};

    /// A login of alice.
    const LOGIN: LoginId = [3; 16];

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
            store.begin_logins_of("alice", &[LOGIN, [1; 16]]);
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
            self.sealed(Some(device), LOGIN, (generation, lifetime))
        }

        fn sealed(&self, device: Option<&str>, login: LoginId, (generation, lifetime): (u64, u64)) -> String {
            let (user, device, methods) = ("alice".to_owned(), device.map(str::to_owned), Vec::new());
            let clocks = clocks::now();
            // The clock was wrong when it was given, which does not matter.
            let logged_in_at = clocks.unix - 10 * 24 * 60 * 60;
            let (boot, since_boot) = (clocks.boot, clocks.since_boot);
            let ends_at = logged_in_at + lifetime;
            let token =
                SessionToken { user, device, login, generation, methods, logged_in_at, ends_at, boot, since_boot };
            self.logins.tokens().seal(&token).unwrap()
        }

        fn check(&self, token: Option<&str>) -> Result<(), String> {
            let checked = check(&*self.store, Some(self.logins.tokens()), self.identity.clone(), token);
            let end = checked.map_err(|error| error.to_string())?.login.map(|login| login.end);
            let left = end.map(|end| end.left(&clocks::now()).as_secs());
            let is_of_now = matches!(end, Some(LoginEnd { unix: None, .. }));
            assert!(is_of_now && left.is_some_and(|left| left <= 60), "{end:?}");
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
        let lifetime = Duration::from_secs(60);
        let again = BegunLogin { id: &[4; 16], user: "alice", generation: 1, lifetime };
        world.store.begin_login(&again).unwrap();
        assert_eq!(world.check(Some(&world.sealed(Some(&device), [4; 16], (1, soon)))), Ok(()));
    }

    #[test]
    fn token_whose_login_was_ended_or_is_not_known_lets_no_device_in() {
        let world = World::new();
        let device = &world.identity.device.id;
        let of_login = |login| world.sealed(Some(device), login, (0, 60));
        assert_eq!(world.check(Some(&of_login([9; 16]))).unwrap_err(), VOID, "nobody knows whether it was ended");
        assert_eq!(world.check(Some(&of_login(LOGIN))), Ok(()), "the positive control");
        world.store.end_login(&LOGIN).unwrap();
        assert_eq!(world.check(Some(&of_login(LOGIN))).unwrap_err(), VOID);
        assert_eq!(world.check(Some(&of_login([1; 16]))), Ok(()), "another login of the same user");
    }

    #[test]
    fn token_of_a_login_without_a_device_finds_its_device_until_it_is_void() {
        let world = World::new();
        let find = |token: &str| {
            let found = device_of(&*world.store, Some(world.logins.tokens()), (token, "laptop"), &|_| false);
            found
                .map(|identity| (identity.device.id, identity.login.map(|login| login.end)))
                .map_err(|error| error.to_string())
        };
        world.store.begin_logins_of("alice", &[[5; 16], [6; 16]]);
        let good = world.sealed(None, LOGIN, (0, 60));
        let (device, end) = find(&good).unwrap();
        assert!(device != world.identity.device.id && matches!(end, Some(LoginEnd { unix: None, .. })));
        assert_eq!(find(&good).unwrap().0, device, "each time");
        assert_eq!(find(&world.sealed(None, LOGIN, (0, 0))).unwrap_err(), OVER);
        let voids = [world.sealed(None, LOGIN, (1, 60)), world.sealed(None, [9; 16], (0, 60))];
        for void in voids.into_iter().chain([world.token(&device, 0, 60), "nonsense".to_owned()]) {
            assert_eq!(find(&void).unwrap_err(), VOID);
        }
        let alice = UserName::parse("alice").unwrap();
        world.store.revoke(&device, SystemTime::now()).unwrap();
        assert_eq!(find(&good).unwrap_err(), AuthError::Revoked.to_string());
        let other = world.sealed(None, [5; 16], (0, 60));
        assert!(find(&other).is_ok(), "the positive control");
        world.store.end_login(&[5; 16]).unwrap();
        assert_eq!(find(&other).unwrap_err(), VOID, "logged out");
        world.store.set_disabled(&alice, true, SystemTime::now()).unwrap();
        let [before, after] = [0, 1].map(|generation| world.sealed(None, [6; 16], (generation, 60)));
        assert!(find(&before).is_err() && find(&after).is_err());
    }

    /// How long a token of an earlier boot lasts that ends at this time, if it does; the login is of an hour.
    fn left_of_earlier_boot(world: &World, ends_at: u64) -> Result<u64, String> {
        let clocks = clocks::now();
        let text = world.sealed(Some(&world.identity.device.id), LOGIN, (0, 0));
        let given = world.logins.tokens().unseal(&text).unwrap();
        let earlier = SessionToken { boot: Boot::of([9; 16]), logged_in_at: ends_at - 3600, ends_at, ..given };
        let token = world.logins.tokens().seal(&earlier).unwrap();
        let checked = check(&*world.store, Some(world.logins.tokens()), world.identity.clone(), Some(&token));
        let login = checked.map_err(|error| error.to_string())?.login.unwrap();
        Ok(login.end.left(&clocks).as_secs())
    }

    #[test]
    fn token_of_an_earlier_boot_outlives_its_login_by_no_clock() {
        let world = World::new();
        let (now, year) = (clocks::now().unix, 365 * 24 * 3600);
        // The clock was years ahead when it was given, or is years behind now.
        let left = || left_of_earlier_boot(&world, now + 10 * year);
        assert!((3500..=3600).contains(&left().unwrap()), "the positive control");
        world.store.restart_host_after(1800);
        assert!((1700..=1800).contains(&left().unwrap()));
        assert!((500..=600).contains(&left_of_earlier_boot(&world, now + 600).unwrap()), "the clock counts, too");
        assert_eq!(left_of_earlier_boot(&world, now - 1).unwrap_err(), OVER);
        world.store.restart_host_after(1800);
        assert_eq!(left().unwrap_err(), OVER);
    }

    #[test]
    fn gateway_without_logins_lets_no_device_in_that_needs_one() {
        let world = World::new();
        let token = world.token(&world.identity.device.id, 0, 60);
        let checked = check(&*world.store, None, world.identity.clone(), Some(&token));
        assert!(matches!(checked, Err(LoginError::Needed(NONE))));
    }
}
