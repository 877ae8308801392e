//! Sources of users, as an administrator meets them.

use adit_program::durable_file;
use adit_testing::free_radius::{FreeRadius, Replies, SECRET};
use adit_testing::slapd::{READER, READER_PASSWORD, Slapd};

use super::Made;

impl Made {
    /// Writes a table of the configuration, with its secret in a file beside it.
    fn with_source(&self, name: &str, secret: &str, settings: &str) {
        let path = self.directory.path().join(format!("{name}.secret"));
        durable_file::create(&path, secret.as_bytes(), 0o600).unwrap();
        let text = std::fs::read_to_string(self.file()).unwrap();
        let head = format!("[{name}]\n");
        let secret = path.display().to_string();
        let settings = settings.replace("SECRET", &format!("{secret:?}"));
        self.replace(&text.replace(&head, &format!("{head}{settings}")));
    }
}

#[test]
fn source_check_asks_radius_servers() {
    let Some(server) = FreeRadius::start(Replies::Authentic) else { return };
    let made = Made::new();
    let (address, away) = (server.authentication(), "127.0.0.1:9");
    made.with_source("radius", SECRET, &format!("servers = [\"{address}\"]\nsecret_file = SECRET\n"));
    let run = made.run(&["source", "check", "radius"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains(&format!("{address}  answers")), "{}", run.stdout);
    let servers = &made.json(&["source", "check", "radius"])["servers"];
    assert_eq!((&servers[0]["server"], &servers[0]["answers"]), (&address.to_string().into(), &true.into()));
    let both = format!("radius.servers=[\"{address}\", \"{away}\"]");
    let run = made.run(&["source", "check", "radius", "--set", &both]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(run.stdout.contains(away) && run.stdout.contains("fails"), "{}", run.stdout);
    assert!(run.stderr.contains(away) && run.stderr.contains("is the server up?"), "{}", run.stderr);
    assert!(!run.stderr.contains(SECRET) && !run.stdout.contains(SECRET));
}

#[test]
fn source_check_asks_servers_of_a_directory() {
    let Some(server) = Slapd::start() else { return };
    let made = Made::new();
    let authority = made.directory.path().join("ca.pem");
    std::fs::copy(server.authority(), &authority).unwrap();
    let (host, port) = server.ldaps();
    let settings = format!(
        "urls = [\"ldaps://{host}:{port}\"]\nauthority = {authority:?}\nbind_dn = \"{READER}\"\n\
         bind_password_file = SECRET\nbase = \"ou=people,dc=lab\"\n"
    );
    made.with_source("ldap", READER_PASSWORD, &settings);
    let run = made.run(&["source", "check", "ldap"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(run.stdout.contains("answers"), "{}", run.stdout);
    let run = made.run(&["source", "check", "ldap", "--set", "ldap.bind_dn=cn=nobody,dc=lab"]);
    assert_eq!(run.code, 5, "{}", run.stderr);
    assert!(run.stderr.contains("ldap.bind_password_file"), "{}", run.stderr);
    assert!(!run.stderr.contains(READER_PASSWORD));
}

#[test]
fn check_names_what_a_source_lacks() {
    let made = Made::new();
    let run = made.run(&["check", "--set", "login.sources=radius,ldap"]);
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert!(run.stderr.contains("radius.servers: no server is named"), "{}", run.stderr);
    assert!(run.stderr.contains("ldap.urls: no server is named"), "{}", run.stderr);
}
