//! OpenLDAP's slapd, with a few entries, and an authority of its own for its certificate.
//!
//! People are below `ou=people,dc=lab`, groups below `ou=groups,dc=lab`. The gateway reads as [`READER`].
//!
//! | user | password | in |
//! | --- | --- | --- |
//! | alice | wonderland | staff |
//! | bob | builder | staff, ops |
//! | carl, whose entry is `cn=Carl (ops)\, Jr.*` | caution | ops |
//! | `we(i)rd*one` | weird | nothing |
//! | twin, twice | double | nothing |
//! | many | legion | 300 groups |

use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::server_process::{ServerProcess, find, own_address};
use crate::{eventually, skip};

/// As whom the gateway looks for users.
pub const READER: &str = "cn=reader,dc=lab";
/// The password for that.
pub const READER_PASSWORD: &str = "reader-pw";

const ADMIN: &str = "cn=admin,dc=lab";
const ADMIN_PASSWORD: &str = "admin-pw";
const TLS_PORT: u16 = 6360;
const PLAIN_PORT: u16 = 3890;

const CONFIGURATION: &str = r"include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
attributetype ( 1.2.840.113556.1.4.8 NAME 'userAccountControl' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.2.840.113556.1.4.159 NAME 'accountExpires' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
objectclass ( 1.3.6.1.4.1.55555.1 NAME 'labAccount' SUP top AUXILIARY MAY ( userAccountControl $ accountExpires ) )
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile FOLDER/pid
TLSCACertificateFile FOLDER/ca.pem
TLSCertificateFile FOLDER/server.pem
TLSCertificateKeyFile FOLDER/server.key
security simple_bind=128
allow bind_anon_dn
database mdb
suffix dc=lab
rootdn cn=admin,dc=lab
rootpw admin-pw
directory FOLDER/db
maxsize 33554432
index objectClass,uid,member eq
access to attrs=userPassword by anonymous auth by * none
access to * by dn.base=cn=reader,dc=lab read by self read by * none
";

const ENTRIES: &str = r"dn: dc=lab
objectClass: dcObject
objectClass: organization
o: lab

dn: cn=reader,dc=lab
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: reader-pw

dn: ou=people,dc=lab
objectClass: organizationalUnit

dn: ou=groups,dc=lab
objectClass: organizationalUnit

";

const PEOPLE: [(&str, &str, &str); 7] = [
    ("uid=alice", "alice", "wonderland"),
    ("uid=bob", "bob", "builder"),
    ("cn=Carl (ops)\\, Jr.*", "carl", "caution"),
    ("cn=Weird", "we(i)rd*one", "weird"),
    ("cn=Twin One", "twin", "double"),
    ("cn=Twin Two", "twin", "double"),
    ("uid=many", "many", "legion"),
];

/// A running slapd; dropping it ends it.
pub struct Slapd {
    folder: TempDir,
    address: IpAddr,
    _process: ServerProcess,
}

impl Slapd {
    /// Starts a server on an address of its own; skips the test where it is not installed.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn start() -> Option<Self> {
        let address = own_address();
        Self::start_with_certificate_for(&address.to_string(), address)
    }

    /// As [`Slapd::start`], with a certificate for somebody else.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn start_as_impostor() -> Option<Self> {
        Self::start_with_certificate_for("192.0.2.1", own_address())
    }

    fn start_with_certificate_for(name: &str, address: IpAddr) -> Option<Self> {
        let (Some(server), Some(filler)) = (find("slapd"), find("slapadd")) else {
            skip("needs slapd");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| folder.path().join(name);
        make_certificates(folder.path(), name);
        fs::create_dir(at("db")).expect("the temporary directory can be written");
        write(&at("slapd.conf"), &CONFIGURATION.replace("FOLDER", &folder.path().display().to_string()));
        write(&at("lab.ldif"), &entries());
        let filled = Command::new(filler).arg("-f").arg(at("slapd.conf")).arg("-l").arg(at("lab.ldif")).output();
        let filled = filled.expect("slapadd can be started");
        assert!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
        let listen = format!("ldaps://{address}:{TLS_PORT} ldap://{address}:{PLAIN_PORT}");
        let configuration = at("slapd.conf");
        let arguments =
            ["-f".as_ref(), configuration.as_os_str(), "-h".as_ref(), listen.as_ref(), "-d".as_ref(), "0".as_ref()];
        let process = ServerProcess::start(&server, arguments);
        let ready = || TcpStream::connect((address, TLS_PORT)).ok();
        drop(eventually("slapd is ready", ready));
        Some(Self { folder, address, _process: process })
    }

    /// Its address for TLS from the first byte.
    #[must_use]
    pub fn ldaps(&self) -> (String, u16) {
        (self.address.to_string(), TLS_PORT)
    }

    /// Its address for StartTLS; without that it takes no password.
    #[must_use]
    pub fn ldap(&self) -> (String, u16) {
        (self.address.to_string(), PLAIN_PORT)
    }

    /// The certificate of its authority.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Changes entries, by LDIF.
    ///
    /// # Panics
    /// The server refuses.
    pub fn modify(&self, ldif: &str) {
        self.client("ldapmodify", &["-D", ADMIN, "-w", ADMIN_PASSWORD], ldif).expect("the change is made");
    }

    /// Whether a bind is answered with success: to show what the server would have said.
    #[must_use]
    pub fn lets_bind(&self, entry: &str, password: &str) -> bool {
        self.client("ldapwhoami", &["-D", entry, "-w", password], "").is_ok()
    }

    fn client(&self, program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
        let url = format!("ldaps://{}:{TLS_PORT}", self.address);
        let mut command = Command::new(program);
        command.args(["-x", "-H", &url]).args(arguments).env("LDAPTLS_CACERT", self.authority());
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("ldap-utils are installed");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("it reads its input");
        let output = child.wait_with_output().expect("it ends");
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }
}

fn entries() -> String {
    let mut ldif = ENTRIES.to_owned();
    for (entry, name, password) in PEOPLE {
        let class = "objectClass: inetOrgPerson\nobjectClass: labAccount";
        let cn = if entry.starts_with("cn=") { "" } else { "cn: somebody\n" };
        ldif += &format!("dn: {entry},ou=people,dc=lab\n{class}\n{cn}sn: x\nuid: {name}\nuserPassword: {password}\n\n");
    }
    let mut group = |name: &str, members: &[&str]| {
        ldif += &format!("dn: cn={name},ou=groups,dc=lab\nobjectClass: groupOfNames\n");
        for member in members {
            ldif += &format!("member: {member},ou=people,dc=lab\n");
        }
        ldif += "\n";
    };
    group("staff", &["uid=alice", "uid=bob"]);
    group("ops", &["uid=bob", "cn=Carl (ops)\\, Jr.*"]);
    for number in 0..300 {
        group(&format!("group-{number:03}"), &["uid=many"]);
    }
    ldif
}

fn make_certificates(folder: &Path, name: &str) {
    let key = || KeyPair::generate().expect("a key pair needs only randomness");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = key();
    let certificate = authority.self_signed(&authority_key).expect("the parameters are right");
    let issuer = Issuer::new(authority, authority_key);
    let server_key = key();
    let server = CertificateParams::new([name.to_owned()]).expect("it is an address");
    let server = server.signed_by(&server_key, &issuer).expect("the parameters are right");
    write(&folder.join("ca.pem"), &certificate.pem());
    write(&folder.join("server.pem"), &server.pem());
    write(&folder.join("server.key"), &server_key.serialize_pem());
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).expect("the temporary directory can be written");
}
