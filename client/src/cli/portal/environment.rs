//! The environment of the program that is let out.
//!
//! Who called may be root, with variables that name secrets or files of root's, or that change what programs load. So
//! it is made of what is known of the program's user, and of a short list of what was there.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use nix::unistd::User;

/// What is passed on: where programs and the screen are, and how whoever calls wants to be talked to. The `XDG_` ones
/// are those that name nothing of the caller's own; all others have defaults below `HOME`.
const PASSED_ON: [&str; 12] = [
    "PATH",
    "TERM",
    "LANG",
    "LANGUAGE",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "XDG_CONFIG_DIRS",
    "XDG_CURRENT_DESKTOP",
    "XDG_DATA_DIRS",
    "XDG_SESSION_DESKTOP",
    "XDG_SESSION_TYPE",
];
/// What the names of those begin with that say how single things are written, such as dates.
const LOCALE: &str = "LC_";
/// Where users who are logged in have their sockets, each in a folder of their number.
pub(super) const RUNTIME: &str = "/run/user";

/// The environment for a program of this user, out of the caller's.
pub(super) fn environment(
    user: u32,
    known: Option<&User>,
    runtime: &Path,
    callers: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let mut environment: Vec<(OsString, OsString)> = callers.filter(|(name, _)| is_passed_on(name)).collect();
    let mut set = |name: &str, value: OsString| {
        environment.retain(|(present, _)| present != name);
        environment.push((name.into(), value));
    };
    if let Some(known) = known {
        set("HOME", known.dir.clone().into_os_string());
        set("SHELL", known.shell.clone().into_os_string());
        for name in ["USER", "LOGNAME"] {
            set(name, known.name.clone().into());
        }
    }
    let own = runtime.join(user.to_string());
    if own.is_dir() {
        if own.join("bus").exists() {
            let mut bus = OsString::from("unix:path=");
            bus.push(own.join("bus"));
            set("DBUS_SESSION_BUS_ADDRESS", bus);
        }
        let screen = "wayland-0";
        if own.join(screen).exists() && !environment.iter().any(|(name, _)| name == "WAYLAND_DISPLAY") {
            environment.push(("WAYLAND_DISPLAY".into(), screen.into()));
        }
        environment.push(("XDG_RUNTIME_DIR".into(), own.into_os_string()));
    }
    environment
}

fn is_passed_on(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| PASSED_ON.contains(&name) || name.starts_with(LOCALE))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::unistd::{Uid, geteuid};

    use super::*;

    const SECRETS: [(&str, &str); 6] = [
        ("ADIT_TOKEN", "secret"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("SSH_AUTH_SOCK", "/root/agent"),
        ("LD_PRELOAD", "/root/evil.so"),
        ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/run/user/0/bus"),
        ("XDG_CONFIG_HOME", "/root/.config"),
    ];
    const HARMLESS: [(&str, &str); 4] =
        [("PATH", "/usr/bin"), ("DISPLAY", ":0"), ("LANG", "de_DE.UTF-8"), ("LC_TIME", "C.UTF-8")];

    fn made(user: u32, known: Option<&User>, runtime: &Path, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let callers =
            SECRETS.iter().chain(&HARMLESS).chain(more).map(|(name, value)| ((*name).into(), (*value).into()));
        let made = environment(user, known, runtime, callers).into_iter();
        let mut made: Vec<_> =
            made.map(|(name, value)| (name.into_string().unwrap(), value.into_string().unwrap())).collect();
        made.sort();
        made
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut owned: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        owned.sort();
        owned
    }

    #[test]
    fn secrets_of_the_caller_do_not_come_to_the_program() {
        let made =
            made(12_345, None, Path::new("/nonexistent"), &[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")]);
        assert_eq!(made, owned(&HARMLESS));
    }

    #[test]
    fn user_is_at_home_and_has_their_own_screen_and_bus() {
        let (runtime, own) = (tempfile::tempdir().unwrap(), geteuid());
        let known = User::from_uid(Uid::from_raw(own.as_raw())).unwrap().expect("who runs tests has a name");
        let folder = runtime.path().join(own.to_string());
        fs::create_dir(&folder).unwrap();
        for socket in ["bus", "wayland-0"] {
            fs::write(folder.join(socket), "").unwrap();
        }
        let (folder, home) = (folder.to_str().unwrap(), known.dir.to_str().unwrap());
        let bus = format!("unix:path={folder}/bus");
        let told = [
            ("HOME", home),
            ("SHELL", known.shell.to_str().unwrap()),
            ("USER", known.name.as_str()),
            ("LOGNAME", known.name.as_str()),
            ("DBUS_SESSION_BUS_ADDRESS", bus.as_str()),
            ("XDG_RUNTIME_DIR", folder),
        ];
        let screen = [("WAYLAND_DISPLAY", "wayland-0")];
        let expected = [&HARMLESS[..], &told, &screen].concat();
        assert_eq!(made(own.as_raw(), Some(&known), runtime.path(), &[("HOME", "/root")]), owned(&expected));
        let other = [("WAYLAND_DISPLAY", "wayland-7")];
        let expected = [&HARMLESS[..], &told, &other].concat();
        assert_eq!(made(own.as_raw(), Some(&known), runtime.path(), &other), owned(&expected));
    }
}
