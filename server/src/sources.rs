//! The sources of users: each says who somebody is that gives a name and password, answers a question of it, or logs in
//! in a browser. The login asks them in the order of `login.sources`.

pub mod ldap;
pub mod local;
#[cfg(feature = "oidc")]
pub mod oidc;
pub mod radius;
pub mod status;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use adit_proto::login::{Cause, Person, Verdict};
use zeroize::Zeroizing;

use crate::config::{Config, Problem, SourceName};
use local::hashers::HashCounts;

pub use adit_proto::login::StartedLink;

/// What keeps the sources of `login.sources` from being used; none of their servers is asked.
pub(crate) fn problems(config: &Config) -> Vec<Problem> {
    let problem = |source: &SourceName| match source {
        SourceName::Radius => radius::source(config).err(),
        SourceName::Ldap => ldap::source(config).err(),
        #[cfg(feature = "oidc")]
        SourceName::Oidc => oidc::problem(config),
        #[cfg(not(feature = "oidc"))]
        SourceName::Oidc => Some(not_built_with("oidc")),
        SourceName::Local => None,
    };
    config.login.sources.iter().filter_map(problem).collect()
}

/// What is wrong with a source, or another part, that this program was built without.
#[cfg(not(all(feature = "radius", feature = "ldap", feature = "oidc", feature = "acme")))]
pub(crate) fn not_built_with(source: &str) -> Problem {
    let next = format!("take the package, or build it with the feature `{source}`, or do without {source}");
    Problem::new(source, "this gateway was built without it", next)
}

/// An answer of a source that is on its way.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// Where a login comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The client's outer address.
    pub address: IpAddr,
    /// The device whose certificate the gateway has checked on this connection, if there is one.
    pub device: Option<String>,
}

/// Strangers about whom one source is asked at a time.
pub const MOST_STRANGERS: usize = 48;

/// Users about whom sources are asked again at a time, whether they still may: one that is slow keeps few waiting.
pub const MOST_RECHECKS: usize = 16;

/// Who knows users. Each answers, or gives up, within 60 seconds. It has room for more logins at a time than for
/// [`MOST_STRANGERS`], so that users who come from a known place find room whatever strangers do, and answers
/// [`Verdict::Busy`] when there is none left.
pub trait Source: Send + Sync {
    /// The word in `login.sources`, in policies (`radius:staff`) and in the store.
    fn name(&self) -> &'static str;

    /// Checks a name and a password. It is never called with an empty password.
    fn check<'a>(&'a self, name: &'a str, password: &'a Zeroizing<String>, origin: &'a Origin) -> Answering<'a>;

    /// Checks the answer to a question that this source asked with this state.
    fn answer<'a>(&'a self, state: &'a [u8], answer: &'a Zeroizing<String>, origin: &'a Origin) -> Answering<'a>;

    /// Says whether somebody who logged in before still may. That is asked about [`MOST_RECHECKS`] users at a time, and
    /// takes no place that a login may need.
    fn recheck<'a>(&'a self, person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>>;

    /// What became of the passwords that the gateway itself hashes for this source, where it does.
    fn hash_counts(&self) -> Option<HashCounts> {
        None
    }

    /// Logins in a browser, where the source has them.
    fn links(&self) -> Option<&dyn LinkSource> {
        None
    }
}

/// Whether somebody who logged in before still may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recheck {
    /// They may, and these are their groups now.
    Allowed(Vec<String>),
    /// They may not any longer.
    Ended(Cause),
    /// The source cannot tell now, for this reason: the session goes on.
    Unknown(String),
}

/// A source whose users log in in a browser, at a link that the client opens or shows. Meanwhile the client waits, and
/// the login polls.
pub trait LinkSource: Send + Sync {
    /// Begins a login of whoever comes from there.
    fn begin<'a>(
        &'a self,
        wish: LinkWish,
        origin: &'a Origin,
    ) -> Pin<Box<dyn Future<Output = Result<StartedLink, Unavailable>> + Send + 'a>>;

    /// Asks how far a login is, by the state it began with. For a login that comes back to the gateway, too: whoever
    /// serves the way back keeps what it brought until it is asked for here.
    /// `proof` is what the client has got from the browser. A login that began with a [`WayToClient`] lets nobody in
    /// without it.
    fn poll<'a>(
        &'a self,
        state: &'a [u8],
        proof: Option<&'a str>,
    ) -> Pin<Box<dyn Future<Output = LinkAnswer> + Send + 'a>>;
}

/// Which kind of link is wanted.
#[derive(Clone)]
pub enum LinkWish {
    /// One for a browser on the client's own host, which comes back to the gateway.
    Redirect,
    /// As [`Self::Redirect`], and the browser goes on from the gateway to the client, by the way that this makes.
    ToClient(Arc<dyn ClientOfBrowser>),
    /// One for a browser anywhere, where a code is typed (RFC 8628).
    DeviceCode,
}

/// A client that a browser on its own host can go on to.
pub trait ClientOfBrowser: Send + Sync {
    /// Makes the way to it; `None` if what the client told for that is of no use. It costs work with keys, so it is
    /// asked for once the limits have let the login begin.
    fn way(&self) -> Option<WayToClient>;
}

/// How a browser tells the client on its own host that its user has logged in. The proof is a secret, so it has no
/// `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct WayToClient {
    /// Where the browser is sent, with a parameter `return`: where it goes from there.
    pub location: String,
    /// What the client learns by that, and nobody else.
    pub proof: Zeroizing<String>,
}

/// How far a login in a browser is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkAnswer {
    /// Not yet; ask again after this time.
    Pending {
        /// How long to wait before the next poll.
        interval: Duration,
    },
    /// It is over.
    Settled(Verdict),
}

/// A source cannot be asked now. The text names source and reason, for the log and the administrator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);
