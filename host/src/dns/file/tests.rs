use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};

use adit_proto::dns::DnsScope;
use adit_testing::skip;
use nix::mount::MsFlags;
use nix::sched::CloneFlags;
use nix::unistd::Uid;

use super::*;

fn settings() -> DnsSettings {
    DnsSettings {
        servers: ["10.64.3.1", "fd12::1", "10.64.3.2", "10.64.3.3"].map(|server| server.parse().unwrap()).to_vec(),
        search: vec!["corp.example".into(), "x\nnameserver 198.51.100.1".into()],
        scope: DnsScope::All,
        exclusive: true,
    }
}

#[test]
fn a_regular_file_comes_back_to_the_byte_and_mode() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let original = b"# \xff no final newline\noptions edns0\nnameserver 192.0.2.53";
    fs::write(&path, original).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let saved = SavedFile::read(&path).unwrap();
    saved.replace(&settings()).unwrap();
    let expected = format!(
        "{}nameserver 10.64.3.1\nnameserver fd12::1\nnameserver 10.64.3.2\nsearch corp.example\noptions edns0\n",
        saved.header()
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    for _ in 0..2 {
        saved.restore().unwrap();
        assert_eq!(fs::read(&path).unwrap(), original);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_symlink_comes_back_and_its_target_is_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let target = directory.path().join("stub.conf");
    fs::write(&target, "nameserver 127.0.0.53\noptions trust-ad\n").unwrap();
    symlink("stub.conf", &path).unwrap();
    let saved = SavedFile::read(&path).unwrap();
    saved.replace(&settings()).unwrap();
    assert!(fs::read_to_string(&path).unwrap().ends_with("options trust-ad\n"));
    for _ in 0..2 {
        saved.restore().unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("stub.conf"));
    }
    assert_eq!(fs::read_to_string(&target).unwrap(), "nameserver 127.0.0.53\noptions trust-ad\n");
}

#[test]
fn a_missing_file_is_missing_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let saved = SavedFile::read(&path).unwrap();
    saved.replace(&settings()).unwrap();
    assert!(path.exists());
    saved.restore().unwrap();
    saved.restore().unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn what_somebody_else_wrote_since_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
    let saved = SavedFile::read(&path).unwrap();
    saved.replace(&settings()).unwrap();
    fs::write(&path, "# from another network\nnameserver 192.0.2.99\n").unwrap();
    saved.restore().unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("192.0.2.99"));
}

#[test]
fn a_file_emptied_by_a_crash_while_writing_in_place_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
    let saved = SavedFile::read(&path).unwrap();
    fs::write(&path, "").unwrap();
    saved.restore().unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "nameserver 192.0.2.53\n");
}

#[test]
fn a_file_that_is_a_mount_point_is_written_in_place() {
    with_mounts(|directory| {
        let (path, behind) = (directory.join("resolv.conf"), directory.join("behind"));
        fs::write(&path, "").unwrap();
        fs::write(&behind, "nameserver 192.0.2.53\n").unwrap();
        bind(&behind, &path, MsFlags::empty());
        let saved = SavedFile::read(&path).unwrap();
        saved.replace(&settings()).unwrap();
        assert!(fs::read_to_string(&behind).unwrap().starts_with(MARKER));
        saved.restore().unwrap();
        assert_eq!(fs::read_to_string(&behind).unwrap(), "nameserver 192.0.2.53\n");
        assert_eq!(fs::read_dir(directory).unwrap().count(), 2);
    });
}

#[test]
fn what_stands_in_the_place_of_our_file_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let original = "nameserver 192.0.2.53\n";
    fs::write(&path, original).unwrap();
    let saved = SavedFile::read(&path).unwrap();
    saved.replace(&settings()).unwrap();
    let standing = || saved.standing(&settings()).unwrap();
    assert_eq!(standing(), Standing::Right);
    let other = DnsSettings { servers: vec!["10.64.3.9".parse().unwrap()], ..settings() };
    assert_eq!(saved.standing(&other).unwrap(), Standing::Outdated);
    for (content, expected) in [
        (original, Standing::Gone),
        ("", Standing::Gone),
        (&MARKER[..20], Standing::Gone),
        ("nameserver 192.0.2.99\n", Standing::Foreign),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(standing(), expected, "{content:?}");
    }
    SavedFile::read(&path).unwrap().replace(&settings()).unwrap();
    assert_eq!(standing(), Standing::OtherClients);
    fs::remove_file(&path).unwrap();
    assert_eq!(standing(), Standing::Gone);
    symlink("elsewhere.conf", &path).unwrap();
    assert_eq!(standing(), Standing::Foreign);
}

#[test]
fn the_file_of_another_client_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
    let (earlier, later) = (SavedFile::read(&path).unwrap(), SavedFile::read(&path).unwrap());
    later.replace(&settings()).unwrap();
    earlier.restore().unwrap();
    assert_eq!(later.standing(&settings()).unwrap(), Standing::Right);
}

#[test]
fn a_file_of_an_older_version_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let (was, byte) = (r#"{"regular":{"content":[110],"mode":420,"uid":0,"gid":0}}"#, b"n");
    let record = format!(r#"{{"path":"{}","was":{was}}}"#, path.display());
    fs::write(&path, format!("{MARKER}nameserver 10.64.3.1\n")).unwrap();
    let saved: SavedFile = serde_json::from_str(&record).unwrap();
    saved.restore().unwrap();
    assert_eq!(fs::read(&path).unwrap(), byte);
}

/// Runs a test as root in a mount namespace of its own, or skips it.
fn with_mounts(test: impl FnOnce(&Path) + Send + 'static) {
    if !Uid::effective().is_root() {
        return skip("needs root to mount");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let body = move || {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        test(&path);
    };
    // The mounts end with the thread, so that the directory can be removed.
    std::thread::spawn(body).join().unwrap();
}

fn bind(from: &Path, to: &Path, flags: MsFlags) {
    nix::mount::mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
    nix::mount::mount(None::<&str>, to, None::<&str>, again, None::<&str>).unwrap();
}

#[test]
fn an_immutable_file_is_named_with_its_attribute_and_the_cure() {
    if !Uid::effective().is_root() {
        return skip("needs root to set attributes");
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
    let chattr = |flag: &str| {
        let done =
            std::process::Command::new("chattr").arg(flag).arg(&path).stderr(std::process::Stdio::null()).status();
        done.is_ok_and(|status| status.success())
    };
    if !chattr("+i") {
        return skip("needs chattr(1) and a file system with attributes");
    }
    let saved = SavedFile::read(&path).unwrap();
    let error = saved.replace(&settings()).unwrap_err();
    assert!(chattr("-i"));
    let cure = format!("{0} has the attribute immutable; `chattr -i {0}` takes it off", path.display());
    assert_eq!(error.to_string(), format!("write {}: {cure}", path.display()));
    assert!(!error.is_permission_denied(), "root is not told to become root");
    saved.replace(&settings()).unwrap();
}

#[test]
fn a_file_mounted_read_only_is_named_as_such() {
    with_mounts(|directory| {
        let (path, behind) = (directory.join("resolv.conf"), directory.join("behind"));
        fs::write(&path, "").unwrap();
        fs::write(&behind, "nameserver 192.0.2.53\n").unwrap();
        bind(&behind, &path, MsFlags::MS_RDONLY);
        let saved = SavedFile::read(&path).unwrap();
        let error = saved.replace(&settings()).unwrap_err();
        assert!(error.to_string().contains("resolv.conf is mounted read-only"), "{error}");
        bind(&behind, &path, MsFlags::empty());
        saved.replace(&settings()).unwrap();
        assert_eq!(saved.standing(&settings()).unwrap(), Standing::Right);
    });
}

#[test]
fn a_full_disk_leaves_the_file_as_it_was() {
    with_mounts(|directory| {
        nix::mount::mount(None::<&str>, directory, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).unwrap();
        let (path, behind) = (directory.join("resolv.conf"), directory.join("behind"));
        fs::write(&path, "nameserver 192.0.2.53\n").unwrap();
        fs::write(&behind, "").unwrap();
        // An empty file has no page of its own, so that there is none for it when the disk is full.
        bind(&behind, &path, MsFlags::empty());
        let filler = fs::write(directory.join("filler"), [1; 128 * 1024]).unwrap_err();
        assert_eq!(filler.kind(), ErrorKind::StorageFull);
        let saved = SavedFile::read(&path).unwrap();
        let error = saved.replace(&settings()).unwrap_err();
        assert!(error.to_string().contains("is full; make room there"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"");
    });
}
