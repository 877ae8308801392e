//! The sessions that go on a login of their user.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::LocalCore;
use crate::core::Order;
use crate::core::login::logins::Logins;
use crate::core::sessions::{Ending, Session};

impl LocalCore {
    /// Where users log in, if they can.
    pub fn logins(&self) -> Option<&Arc<Logins>> {
        self.logins.as_ref()
    }

    /// The users who have sessions by a login, each once.
    pub fn logged_in(&self) -> BTreeSet<String> {
        self.by_login().map(|session| session.device.user.clone()).collect()
    }

    /// Ends the sessions that a user has by a login, and says how many. What was given to the user must be void before,
    /// or they come back.
    pub fn end_logins(&self, user: &str) -> usize {
        let of_user = self.by_login().filter(|session| session.device.user == user);
        of_user.filter(|session| self.order(&session.device.id, Order::End(Ending::LoginOver))).count()
    }

    fn by_login(&self) -> impl Iterator<Item = Arc<Session>> {
        self.sessions.all().into_iter().filter(|session| session.goes_on_login())
    }
}

#[cfg(test)]
mod tests {
    use adit_proto::login::token::LoginEnd;

    use super::super::tests::{core, open};
    use super::*;

    #[test]
    fn sessions_by_a_login_end_and_others_of_the_user_go_on() {
        let (core, _accounts) = core();
        let (by_login, closed) = open(&core, "dev-a").unwrap();
        let (_, untouched) = open(&core, "dev-b").unwrap();
        assert!(core.logged_in().is_empty());
        by_login.set_login_end(Some(LoginEnd::At(u64::MAX)));
        assert_eq!(core.logged_in().into_iter().collect::<Vec<_>>(), ["alice"]);
        assert_eq!(core.end_logins("bob"), 0);
        assert_eq!(core.end_logins("alice"), 1);
        assert_eq!((closed.closed(), untouched.closed()), (Some(Ending::LoginOver), None));
        assert_eq!(core.sessions().len(), 1);
    }
}
