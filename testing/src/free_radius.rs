//! FreeRADIUS, with a few users.
//!
//! | user | password | what happens |
//! | --- | --- | --- |
//! | alice | wonderland | comes in, with groups, for an hour |
//! | bob | builder | is asked for a code, 123456 |
//! | carol | christmas | comes in as `caroline`, in 300 groups |
//! | dave | diver | is disabled |
//! | erin | easter | has expired |
//! | quiz | master | is asked for ever |

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;

use crate::server_process::{ServerProcess, find, own_address};
use crate::{eventually, skip};

/// What the server shares with everybody on this host.
pub const SECRET: &str = "lab-secret-at-least-16";

const AUTHENTICATION_PORT: u16 = 1812;
const ACCOUNTING_PORT: u16 = 1813;

const CONFIGURATION: &str = r#"
prefix = /usr
libdir = /usr/lib/freeradius
logdir = ${confdir}
run_dir = ${confdir}
pidfile = ${confdir}/pid
log {
 destination = files
 file = ${confdir}/radius.log
 auth = yes
}
security {
 reject_delay = 0
 status_server = yes
}
thread pool {
 start_servers = 1
 max_servers = 4
 min_spare_servers = 1
 max_spare_servers = 2
}
modules {
 pap {
 }
 expiration {
 }
 files {
  usersfile = ${confdir}/users
 }
 detail {
  filename = ${confdir}/detail
 }
 always reject {
  rcode = reject
 }
 always handled {
  rcode = handled
 }
 always ok {
  rcode = ok
 }
}
client lab {
 ipaddr = 127.0.0.0/8
 secret = lab-secret-at-least-16
 require_message_authenticator = yes
}
server lab {
 listen {
  type = auth
  ipaddr = ADDRESS
  port = 1812
 }
 listen {
  type = acct
  ipaddr = ADDRESS
  port = 1813
 }
 authorize {
  if (!&User-Password) {
   reject
  }
  if (&User-Name == "quiz") {
   update control {
    Auth-Type := Quiz
   }
  }
  elsif (&State) {
   update control {
    Auth-Type := Step2
   }
  }
  else {
   files
   expiration
   if (&control:Tmp-String-0) {
    update control {
     Auth-Type := Step1
    }
   }
   elsif (!&control:Auth-Type) {
    update control {
     Auth-Type := PAP
    }
   }
  }
 }
 authenticate {
  Auth-Type PAP {
   pap
  }
  Auth-Type Step1 {
   pap
   update session-state {
    Tmp-String-0 := &control:Tmp-String-0
   }
   update reply {
    Reply-Message := "Enter the code"
   }
   update control {
    Response-Packet-Type := Access-Challenge
   }
   handled
  }
  Auth-Type Step2 {
   if (&User-Password == &session-state:Tmp-String-0) {
    files.authorize
    ok
   }
   else {
    reject
   }
  }
  Auth-Type Quiz {
   update reply {
    Reply-Message := "Again?"
    Prompt := Echo
   }
   update control {
    Response-Packet-Type := Access-Challenge
   }
   handled
  }
 }
POST_AUTH
 preacct {
  ok
 }
 accounting {
  detail
  ok
 }
}
"#;

/// What makes this version of the server authenticate its replies: without it, none has a Message-Authenticator.
const POST_AUTH: &str = "
 post-auth {
  update reply {
   Message-Authenticator := 0x00
  }
  Post-Auth-Type REJECT {
   update reply {
    Message-Authenticator := 0x00
   }
  }
  Post-Auth-Type Challenge {
   update reply {
    Message-Authenticator := 0x00
   }
  }
 }";

const USERS: &str = r#"
alice Cleartext-Password := "wonderland"
	Class := "OU=staff;vpn", Filter-Id := "filtered", Session-Timeout := 3600
bob Cleartext-Password := "builder", Tmp-String-0 := "123456"
	Class := "ops"
dave Auth-Type := Reject
	Class := "staff"
erin Cleartext-Password := "easter", Expiration := "1 Jan 2020"
	Class := "staff"
carol Cleartext-Password := "christmas"
	User-Name := "caroline""#;

/// Whether the server authenticates its replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replies {
    /// Each has a Message-Authenticator.
    Authentic,
    /// None has one.
    Bare,
}

/// A running FreeRADIUS; dropping it ends it.
pub struct FreeRadius {
    folder: TempDir,
    address: IpAddr,
    process: Option<ServerProcess>,
}

impl FreeRadius {
    /// Starts a server on an address of its own; skips the test where it is not installed.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn start(replies: Replies) -> Option<Self> {
        if find("freeradius").is_none() {
            skip("needs freeradius");
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary directory");
        let address = own_address();
        let post_auth = if replies == Replies::Authentic { POST_AUTH } else { "" };
        let configuration = CONFIGURATION.replace("ADDRESS", &address.to_string()).replace("POST_AUTH", post_auth);
        write(folder.path(), "radiusd.conf", &configuration);
        write(folder.path(), "dictionary", "$INCLUDE /usr/share/freeradius/dictionary\n");
        write(folder.path(), "users", &format!("{}{}\n", USERS.trim_start(), many_groups()));
        let mut server = Self { folder, address, process: None };
        server.begin();
        Some(server)
    }

    /// Where logins are asked for.
    #[must_use]
    pub fn authentication(&self) -> SocketAddr {
        (self.address, AUTHENTICATION_PORT).into()
    }

    /// Where sessions are told of.
    #[must_use]
    pub fn accounting(&self) -> SocketAddr {
        (self.address, ACCOUNTING_PORT).into()
    }

    /// What it was told of sessions so far, as it notes that.
    #[must_use]
    pub fn accounted(&self) -> String {
        fs::read_to_string(self.folder.path().join("detail")).unwrap_or_default()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("radius.log")).unwrap_or_default()
    }

    /// Ends it for now.
    pub fn stop(&mut self) {
        self.process = None;
        fs::remove_file(self.folder.path().join("radius.log")).ok();
    }

    /// Starts it again where it was.
    ///
    /// # Panics
    /// It does not come up.
    pub fn begin(&mut self) {
        let program = find("freeradius").expect("it was there before");
        let folder = self.folder.path().as_os_str();
        self.process = Some(ServerProcess::start(&program, ["-f".as_ref(), "-d".as_ref(), folder]));
        eventually("FreeRADIUS is ready", || self.log().contains("Ready to process requests").then_some(()));
    }
}

/// 300 groups in as few values as they fit into.
fn many_groups() -> String {
    let names: Vec<String> = (0..300).map(|number| format!("group-{number:03}")).collect();
    names.chunks(24).map(|names| format!(", Class += \"OU={}\"", names.join(";"))).collect()
}

fn write(folder: &Path, name: &str, content: &str) {
    fs::write(folder.join(name), content).expect("the temporary directory can be written");
}
