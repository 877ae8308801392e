//! What groups set for their members.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::form::FormError;
use super::hours::Hours;
use super::limit::{Quota, QuotaAction, Rate};
use super::model::PolicyDocument;

/// A value, and how it is written in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<T> {
    /// The value.
    pub value: T,
    /// How it is written.
    pub literal: String,
    /// The line it is written in.
    pub line: usize,
}

/// A value that holds for somebody, and whose it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen<'a, T> {
    /// The value.
    pub written: &'a Written<T>,
    /// The number of the group that set it.
    pub group: usize,
}

// Derived, both would ask the same of `T`.
impl<T> Clone for Chosen<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Chosen<'_, T> {}

/// Makes one struct of what a group sets, and one of what holds for somebody, with the same fields.
macro_rules! settings {
    ($($(#[$doc:meta])+ $name:ident: $type:ty,)+) => {
        /// What a group sets for its members. What it leaves out is left to other groups, and last to the gateway.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Settings {
            $($(#[$doc])+ pub $name: Option<Written<$type>>,)+
        }

        /// What holds for somebody: of each setting the one of the first group that has it.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct SettingsOf<'a> {
            $($(#[$doc])+ pub $name: Option<Chosen<'a, $type>>,)+
        }

        impl Settings {
            /// The keys, as a file has them.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name)),+];
        }

        impl<'a> SettingsOf<'a> {
            /// What is set: the key, how its value is written, in which line, and the number of the group.
            pub fn written(&self) -> Vec<(&'static str, &'a str, usize, usize)> {
                let mut written = Vec::new();
                $(if let Some(Chosen { written: found, group }) = &self.$name {
                    written.push((stringify!($name), found.literal.as_str(), found.line, *group));
                })+
                written
            }
        }

        impl PolicyDocument {
            /// What holds for somebody who is in these groups: of each setting the one of the first of them, in file
            /// order, that has it.
            pub fn settings_of(&self, groups: &[usize]) -> SettingsOf<'_> {
                self.settings_with(None, groups)
            }

            /// As [`Self::settings_of`], but what `chosen` sets, which is one of the groups, stands before the rest.
            pub fn settings_with(&self, chosen: Option<usize>, groups: &[usize]) -> SettingsOf<'_> {
                let numbered = |number: usize| Some((number, self.groups().get(number)?));
                let first = || chosen.filter(|chosen| groups.contains(chosen)).and_then(numbered);
                let in_file_order =
                    || self.groups().iter().enumerate().filter(|(number, _)| groups.contains(number));
                let of_groups = || first().into_iter().chain(in_file_order());
                SettingsOf {
                    $($name: of_groups().find_map(|(group, found)| {
                        Some(Chosen { written: found.settings.$name.as_ref()?, group })
                    }),)+
                }
            }
        }
    };
}

settings! {
    /// Networks that clients send through the tunnel.
    routes: Vec<IpNet>,
    /// Resolvers for clients.
    dns: Vec<IpAddr>,
    /// Domains for which clients ask these resolvers; an empty list means every name.
    dns_domains: Vec<String>,
    /// Largest packet inside the tunnel, in bytes.
    mtu: u16,
    /// Most that a session sends to the gateway.
    rate_up: Rate,
    /// Most that a session receives.
    rate_down: Rate,
    /// Most that a user moves in each period.
    quota: Quota,
    /// What happens to who has used up the quota.
    quota_action: QuotaAction,
    /// Sessions of one user at a time; never 0.
    sessions: usize,
    /// What happens to a user who opens one more.
    sessions_full: WhenFull,
    /// How long a session may carry no packet.
    idle_timeout: Duration,
    /// How long after a login its sessions end.
    session_lifetime: Duration,
    /// When a session may be open.
    hours: Hours,
    /// When a login needs a second factor.
    second_factor: SecondFactor,
}

/// What happens to a user who has as many sessions as may be and opens one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// The oldest session ends.
    Replace,
    /// The new session is refused.
    Refuse,
}

/// When a user who has a second factor is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecondFactor {
    /// At each login.
    Always,
    /// Where the user does not come with a certificate of a device of theirs, which counts as a factor.
    Device,
    /// Never.
    Never,
}

impl FromStr for WhenFull {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        match text {
            "replace" => Ok(Self::Replace),
            "refuse" => Ok(Self::Refuse),
            _ => Err(FormError::new(format!("{text:?} is not known"), "write \"replace\" or \"refuse\"")),
        }
    }
}

impl FromStr for SecondFactor {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        match text {
            "always" => Ok(Self::Always),
            "device" => Ok(Self::Device),
            "never" => Ok(Self::Never),
            _ => Err(FormError::new(format!("{text:?} is not known"), "write \"always\", \"device\" or \"never\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_words_and_other_words_are_refused() {
        assert_eq!(["replace", "refuse"].map(str::parse), [Ok(WhenFull::Replace), Ok(WhenFull::Refuse)]);
        let all = [SecondFactor::Always, SecondFactor::Device, SecondFactor::Never].map(Ok);
        assert_eq!(["always", "device", "never"].map(str::parse), all);
        assert!("Replace".parse::<WhenFull>().is_err() && "".parse::<SecondFactor>().is_err());
    }
}
