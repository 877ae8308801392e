use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use adit_testing::skip;
use tempfile::TempDir;

use super::*;

/// A user that is neither root nor the one who runs tests.
const STRANGER: u32 = 4242;

/// `above/own/file` in a directory of ours: all in order.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        fs::create_dir_all(place.own()).unwrap();
        fs::write(place.file(), "content").unwrap();
        for (path, mode) in [(place.above(), 0o755), (place.own(), 0o755), (place.file(), 0o600)] {
            set_mode(&path, mode);
        }
        place
    }

    fn above(&self) -> PathBuf {
        self.directory.path().join("above")
    }

    fn own(&self) -> PathBuf {
        self.above().join("own")
    }

    fn file(&self) -> PathBuf {
        self.own().join("file")
    }

    fn read(&self) -> Result<String, GuardError> {
        read(&self.file(), Readers::Owner)
    }

    /// The refusal, whose path is that of the culprit as the kernel knows it.
    fn refusal(&self, culprit: &Path) -> String {
        let error = self.read().unwrap_err();
        assert_eq!(error.path.canonicalize().unwrap(), culprit.canonicalize().unwrap(), "{error}");
        assert_eq!(Failure::from(self.read().unwrap_err()).exit, Exit::Usage, "{error}");
        format!("{}; {}", error.reason, error.next)
    }
}

fn read(path: &Path, readers: Readers) -> Result<String, GuardError> {
    let content = Guard::default().read(path, readers)?;
    Ok(String::from_utf8(content.to_vec()).unwrap())
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Gives a file away; false, after saying so, where only root could.
fn give_away(path: &Path) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip("needs root to give a file away");
        return false;
    }
    chown(path, Some(STRANGER), None).unwrap();
    true
}

#[test]
fn file_that_only_we_can_change_is_read() {
    let place = Place::new();
    assert_eq!(place.read().unwrap(), "content");
    set_mode(&place.file(), 0o644);
    assert_eq!(read(&place.file(), Readers::Everybody).unwrap(), "content");
}

#[test]
fn secret_that_others_can_read_is_refused() {
    let place = Place::new();
    for mode in [0o640, 0o604, 0o610, 0o601] {
        set_mode(&place.file(), mode);
        let refused = place.refusal(&place.file());
        assert!(refused.contains(&format!("mode {mode:04o}")) && refused.contains("chmod 600"), "{refused}");
    }
}

#[test]
fn file_that_others_can_write_is_refused() {
    let place = Place::new();
    for mode in [0o620, 0o602, 0o666] {
        set_mode(&place.file(), mode);
        assert!(place.read().is_err(), "{mode:o}");
        let refused = read(&place.file(), Readers::Everybody).unwrap_err();
        assert!(refused.reason.contains("lets others write") && refused.next.contains("chmod go-w"), "{refused:?}");
    }
}

#[test]
fn file_of_another_user_is_refused() {
    let place = Place::new();
    if !give_away(&place.file()) {
        return;
    }
    let refused = place.refusal(&place.file());
    assert!(refused.contains("belongs to user 4242") && refused.contains("chown 0 "), "{refused}");
    let guard = Guard::default().or_user(Some(STRANGER));
    assert!(guard.read(&place.file(), Readers::Owner).is_ok(), "who is named is trusted");
}

#[test]
fn directory_of_another_user_is_refused_at_any_height() {
    for directory in [Place::own, Place::above] {
        let place = Place::new();
        if !give_away(&directory(&place)) {
            return;
        }
        let refused = place.refusal(&directory(&place));
        assert!(refused.contains("belongs to user 4242") && refused.contains("chown"), "{refused}");
    }
}

#[test]
fn directory_that_others_can_write_is_refused_at_any_height() {
    for directory in [Place::own, Place::above] {
        for mode in [0o775, 0o757, 0o777] {
            let place = Place::new();
            set_mode(&directory(&place), mode);
            let refused = place.refusal(&directory(&place));
            assert!(refused.contains(&format!("mode {mode:04o}")) && refused.contains("chmod go-w"), "{refused}");
        }
    }
}

#[test]
fn sticky_directory_is_good_enough_above_but_not_for_the_file_itself() {
    let place = Place::new();
    set_mode(&place.above(), 0o1777);
    assert_eq!(place.read().unwrap(), "content");
    set_mode(&place.own(), 0o1777);
    assert!(place.refusal(&place.own()).contains("mode 1777"));
}

#[test]
fn symbolic_link_is_not_taken_for_the_file() {
    let place = Place::new();
    let link = place.own().join("link");
    symlink("file", &link).unwrap();
    let refused = read(&link, Readers::Owner).unwrap_err();
    assert_eq!((refused.path, refused.reason.as_str()), (link, "is a symbolic link"));
}

#[test]
fn symbolic_links_to_the_directory_lead_to_where_the_same_rules_hold() {
    let place = Place::new();
    let (relative, absolute) = (place.above().join("relative"), place.directory.path().join("absolute"));
    symlink("../above/./own", &relative).unwrap();
    symlink(place.own(), &absolute).unwrap();
    for link in [&relative, &absolute] {
        assert_eq!(read(&link.join("file"), Readers::Owner).unwrap(), "content", "{}", link.display());
    }
    set_mode(&place.above(), 0o777);
    for link in [&relative, &absolute] {
        let refused = read(&link.join("file"), Readers::Owner).unwrap_err();
        assert!(refused.path.ends_with("above"), "{refused}");
    }
}

#[test]
fn symbolic_link_of_another_user_is_not_followed() {
    let place = Place::new();
    let link = place.directory.path().join("link");
    symlink(place.own(), &link).unwrap();
    if !nix::unistd::geteuid().is_root() {
        return skip("needs root to give a link away");
    }
    lchown(&link, Some(STRANGER), None).unwrap();
    let refused = read(&link.join("file"), Readers::Owner).unwrap_err();
    assert!(refused.path.ends_with("link") && refused.reason.contains("4242"), "{refused}");
}

#[test]
fn links_in_a_circle_end() {
    let place = Place::new();
    symlink("circle", place.own().join("circle")).unwrap();
    assert!(read(&place.own().join("circle/file"), Readers::Owner).is_err());
}

#[test]
fn what_is_no_file_or_missing_is_told_apart() {
    let place = Place::new();
    assert_eq!(read(&place.own(), Readers::Owner).unwrap_err().reason, "is not a regular file");
    let missing = read(&place.own().join("none"), Readers::Owner).unwrap_err();
    assert!(missing.is_missing() && missing.reason == "does not exist", "{missing}");
    let missing = read(&place.directory.path().join("none/file"), Readers::Owner).unwrap_err();
    assert!(missing.is_missing() && missing.path.ends_with("none"), "{missing}");
    assert!(!read(&place.file().join("file"), Readers::Owner).unwrap_err().is_missing());
}

#[test]
fn pipe_is_refused_without_waiting_for_a_writer() {
    let place = Place::new();
    let pipe = place.own().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    assert_eq!(read(&pipe, Readers::Owner).unwrap_err().reason, "is not a regular file");
}

#[test]
fn file_to_append_to_is_made_private_and_keeps_what_it_has() {
    let place = Place::new();
    let path = place.own().join("journal");
    let open = || Guard::default().open(&path, Access::AppendOrCreate, Readers::Owner);
    for line in ["a", "b"] {
        io::Write::write_all(&mut open().unwrap(), line.as_bytes()).unwrap();
    }
    assert_eq!(read(&path, Readers::Owner).unwrap(), "ab");
    set_mode(&place.own(), 0o777);
    fs::remove_file(&path).unwrap();
    assert!(open().is_err());
    assert!(!path.exists(), "nothing is made where others may write");
}

#[test]
fn overflow_user_is_nobody_in_particular_only_where_it_has_no_number_of_its_own() {
    assert_eq!(unmapped("         0          0 4294967295\n", 65534), None);
    assert_eq!(unmapped("0 1000 1\n1 100000 65536\n", 65534), None);
    assert_eq!(unmapped("         0       1000          1\n", 65534), Some(65534));
    assert_eq!(unmapped("", 65534), None);
}

#[test]
fn overflow_user_may_own_what_is_above_but_neither_the_directory_nor_the_file() {
    let guard = Guard { overflow: Some(STRANGER), ..Guard::default() };
    let place = Place::new();
    if !give_away(&place.above()) {
        return;
    }
    assert!(place.read().is_err());
    assert!(guard.read(&place.file(), Readers::Owner).is_ok());
    for path in [place.own(), place.file()] {
        chown(&path, Some(STRANGER), None).unwrap();
        assert!(guard.read(&place.file(), Readers::Owner).is_err(), "{}", path.display());
        chown(&path, Some(0), None).unwrap();
    }
}
