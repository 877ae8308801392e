//! The source itself: from a login to searches and binds, and from entries to verdicts.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use adit_proto::login::{Cause, Method, Person, Verdict};
use ldap3::{Scope, SearchEntry, ldap_escape, parse_filter};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::directory::{Away, Bound, Connection, Directory};
use super::entry;
use super::settings::{ENTRY, LdapSettings, LdapUrl, USER};
use crate::accounts::UserName;
use crate::config::Problem;
use crate::sources::status::ServerStatus;
use crate::sources::{Answering, MOST_STRANGERS, Origin, Recheck, Source};
use crate::trust;

/// Its word in the configuration, in policies and in the store.
const NAME: &str = "ldap";

/// Logins that use the directory at a time; each has two connections at most. Strangers leave some to users who are
/// known. Rechecks take none of these places: there are few of them at a time, and they may take long.
const MOST_AT_WORK: usize = MOST_STRANGERS + 16;

/// How long a login waits for such a place.
const TURN: Duration = Duration::from_secs(5);

/// Longest time for one login on all servers: a login has 60 seconds.
const LONGEST: Duration = Duration::from_secs(45);

/// Longest name that is looked for, in bytes.
const LONGEST_NAME: usize = 256;

/// Most groups that a user may have. More are no answer: a group that is left out could be one that is denied things.
const MOST_GROUPS: usize = 4096;

/// Members of groups in groups (LDAP_MATCHING_RULE_IN_CHAIN of Active Directory).
const NESTED: &str = "(member:1.2.840.113556.1.4.1941:=$dn)";

/// A directory as a source of users.
pub struct Ldap {
    directory: Directory,
    settings: LdapSettings,
    base: String,
    /// As whom entries are looked for; anonymously without.
    reader: Option<(String, Zeroizing<String>)>,
    at_work: Semaphore,
}

/// Why no server answered.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    /// None was asked.
    #[error("ldap: {MOST_AT_WORK} logins wait for the directory already")]
    Busy,
    /// What each did instead.
    #[error("ldap: {0}")]
    Away(String),
}

impl Ldap {
    /// Reads certificates and the password; asks no server yet.
    ///
    /// # Errors
    /// What is missing or wrong in the settings.
    pub fn new(settings: &LdapSettings) -> Result<Self, Problem> {
        if settings.urls.is_empty() {
            let next = "name a server of the directory, or take ldap out of login.sources";
            return Err(Problem::new("ldap.urls", "no server is named", next));
        }
        let Some(base) = settings.base.clone() else {
            return Err(Problem::new("ldap.base", "is not set", "name the entry below which users are"));
        };
        for (key, filter) in
            [("ldap.user_filter", &settings.user_filter), ("ldap.group_filter", &settings.group_filter)]
        {
            if parse_filter(expand(filter, "name", "cn=name")).is_err() {
                let next = "write a filter of RFC 4515 such as \"(&(objectClass=person)(uid=$user))\"";
                return Err(Problem::new(key, format!("{filter:?} is no filter"), next));
            }
        }
        Ok(Self {
            directory: Directory::new(trust::tls("ldap.authority", settings.authority.as_deref())?, settings.timeout),
            reader: reader(settings)?,
            settings: settings.clone(),
            base,
            at_work: Semaphore::new(MOST_AT_WORK),
        })
    }

    /// Asks each server whether the gateway may look for users there: what is wrong with it, in words, if something is.
    pub async fn status(&self) -> Vec<ServerStatus> {
        let mut found = Vec::new();
        for url in &self.settings.urls {
            let asked = async {
                let mut connection = self.connect(url).await?;
                let attributes = vec!["1.1".to_owned()];
                connection.search(&self.base, Scope::Base, "(objectClass=*)", attributes, 1).await.map(drop)
            };
            found.push(ServerStatus::new(url, asked.await.map_err(|away: Away| format!("ldap: {away}"))));
        }
        found
    }

    async fn log_in(&self, name: &str, password: &Zeroizing<String>) -> Verdict {
        if password.is_empty() {
            return Verdict::Refused(Cause::WrongPassword);
        }
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Verdict::Unknown;
        }
        let attempts = self.settings.urls.iter().map(|url| self.log_in_at(url, name, password)).collect();
        match self.in_turn(attempts).await {
            Ok(verdict) => verdict,
            Err(why @ NoAnswer::Busy) => Verdict::Busy(why.to_string()),
            Err(why @ NoAnswer::Away(_)) => Verdict::Unavailable(why.to_string()),
        }
    }

    /// Makes the attempts of a login, once it has a place.
    async fn in_turn<T>(&self, attempts: Vec<impl Future<Output = Result<T, Away>>>) -> Result<T, NoAnswer> {
        let Ok(Ok(_place)) = timeout(TURN, self.at_work.acquire()).await else { return Err(NoAnswer::Busy) };
        self.of_some_server(attempts).await
    }

    /// Makes one attempt after the other, each at another server, until one can tell.
    async fn of_some_server<T>(&self, attempts: Vec<impl Future<Output = Result<T, Away>>>) -> Result<T, NoAnswer> {
        let mut away = Vec::new();
        let asking = async {
            for attempt in attempts {
                match attempt.await {
                    Ok(answer) => return Some(answer),
                    Err(reason) => {
                        tracing::debug!(%reason, "server of the directory passed over");
                        away.push(reason.to_string());
                    }
                }
            }
            None
        };
        match timeout(LONGEST, asking).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(NoAnswer::Away(away.join("; "))),
            Err(_elapsed) => Err(NoAnswer::Away(format!("no server could tell in {} s", LONGEST.as_secs()))),
        }
    }

    async fn log_in_at(&self, url: &LdapUrl, name: &str, password: &Zeroizing<String>) -> Result<Verdict, Away> {
        let mut reading = self.connect(url).await?;
        let filter = expand(&self.settings.user_filter, name, "");
        let mut found = self.users(&mut reading, &filter).await?;
        let Some(user) = found.pop() else { return Ok(Verdict::Unknown) };
        if !found.is_empty() {
            return Ok(refused("several entries match: narrow ldap.user_filter or ldap.base"));
        }
        // A connection of its own: what the user may see is not what the gateway may.
        match self.directory.connect(url).await?.bind(&user.dn, password).await? {
            Bound::Yes => {}
            Bound::No(text) => return Ok(Verdict::Refused(entry::refusal(&text))),
            Bound::NotPermitted(text) => return Ok(refused(&format!("the directory does not let them bind ({text})"))),
        }
        if let Some(cause) = entry::obstacle(&user, SystemTime::now()) {
            return Ok(Verdict::Refused(cause));
        }
        let (Some(name), Some(subject)) = (self.name_of(&user), self.subject_of(&user)) else {
            let LdapSettings { name_attribute, id_attribute, .. } = &self.settings;
            return Err(Away::unusable(
                url,
                &format!("shows this gateway no {name_attribute} or {id_attribute} of a user"),
            ));
        };
        let name = match UserName::parse(name) {
            Ok(name) => name.to_string(),
            Err(error) => return Ok(refused(&error.to_string())),
        };
        let groups = self.groups(&mut reading, url, &user).await?;
        let source = NAME.to_owned();
        let methods = vec![Method::Password];
        Ok(Verdict::Accepted(Person {
            source,
            subject,
            name,
            groups,
            methods,
            session_lifetime: None,
            generation: None,
        }))
    }

    /// The entry of somebody who logged in before must still match the filter, and be in force.
    async fn recheck_at(&self, url: &LdapUrl, person: &Person) -> Result<Recheck, Away> {
        let Some(of_subject) = entry::subject_filter(&person.subject, &self.settings.id_attribute) else {
            return Ok(Recheck::Ended(Cause::NotPermitted("ldap.id_attribute is another now".to_owned())));
        };
        let mut reading = self.connect(url).await?;
        let filter = format!("(&{of_subject}{})", expand(&self.settings.user_filter, &person.name, ""));
        let Some(user) = self.users(&mut reading, &filter).await?.pop() else {
            let reason = "no longer in the directory, renamed, or not matched by ldap.user_filter";
            return Ok(Recheck::Ended(Cause::NotPermitted(reason.to_owned())));
        };
        match entry::obstacle(&user, SystemTime::now()) {
            Some(cause) => Ok(Recheck::Ended(cause)),
            None => Ok(Recheck::Allowed(self.groups(&mut reading, url, &user).await?)),
        }
    }

    /// Connects as whoever looks for users.
    async fn connect(&self, url: &LdapUrl) -> Result<Connection, Away> {
        let mut connection = self.directory.connect(url).await?;
        if let Some((entry, password)) = &self.reader {
            match connection.bind(entry, password).await? {
                Bound::Yes => {}
                Bound::No(text) | Bound::NotPermitted(text) => return Err(Away::reader_refused(url, &text)),
            }
        }
        Ok(connection)
    }

    async fn users(&self, reading: &mut Connection, filter: &str) -> Result<Vec<SearchEntry>, Away> {
        let mut attributes = vec![self.settings.name_attribute.clone(), self.settings.id_attribute.clone()];
        attributes.extend(entry::STATES.map(str::to_owned));
        reading.search(&self.base, Scope::Subtree, filter, attributes, 1).await
    }

    async fn groups(&self, reading: &mut Connection, url: &LdapUrl, user: &SearchEntry) -> Result<Vec<String>, Away> {
        let Some(base) = &self.settings.group_base else { return Ok(Vec::new()) };
        let filter = if self.settings.nested_groups { NESTED } else { &self.settings.group_filter };
        let filter = expand(filter, self.name_of(user).unwrap_or_default(), &user.dn);
        let attribute = &self.settings.group_attribute;
        let found = reading.search(base, Scope::Subtree, &filter, vec![attribute.clone()], MOST_GROUPS).await?;
        if found.len() > MOST_GROUPS {
            let reason =
                format!("puts a user in more than {MOST_GROUPS} groups: narrow ldap.group_base or ldap.group_filter");
            return Err(Away::unusable(url, &reason));
        }
        let mut groups: Vec<String> =
            found.iter().filter_map(|group| entry::name(group, attribute)).map(str::to_owned).collect();
        groups.sort();
        groups.dedup();
        Ok(groups)
    }

    fn name_of<'a>(&self, user: &'a SearchEntry) -> Option<&'a str> {
        entry::name(user, &self.settings.name_attribute)
    }

    fn subject_of(&self, user: &SearchEntry) -> Option<String> {
        entry::subject(user, &self.settings.id_attribute)
    }
}

impl Source for Ldap {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check<'a>(&'a self, name: &'a str, password: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
        Box::pin(self.log_in(name, password))
    }

    fn answer<'a>(&'a self, _state: &'a [u8], _answer: &'a Zeroizing<String>, _origin: &'a Origin) -> Answering<'a> {
        let reason = "ldap: a directory asks no questions".to_owned();
        Box::pin(std::future::ready(Verdict::Unavailable(reason)))
    }

    fn recheck<'a>(&'a self, person: &'a Person) -> Pin<Box<dyn Future<Output = Recheck> + Send + 'a>> {
        Box::pin(async move {
            let attempts = self.settings.urls.iter().map(|url| self.recheck_at(url, person)).collect();
            self.of_some_server(attempts).await.unwrap_or_else(|why| Recheck::Unknown(why.to_string()))
        })
    }
}

fn reader(settings: &LdapSettings) -> Result<Option<(String, Zeroizing<String>)>, Problem> {
    let problem = |reason: String, next: String| Problem::new("ldap.bind_password_file", reason, next);
    let (entry, place) = match (&settings.bind_dn, &settings.bind_password) {
        (None, None) => return Ok(None),
        (Some(entry), Some(place)) => (entry, place),
        (Some(_), None) => {
            return Err(problem(
                "is not set, but ldap.bind_dn is".to_owned(),
                "name the file with its password".to_owned(),
            ));
        }
        (None, Some(_)) => {
            return Err(Problem::new(
                "ldap.bind_dn",
                "is not set, but ldap.bind_password_file is",
                "say whose password it is",
            ));
        }
    };
    let secret = place.read().map_err(|error| problem(error.to_string(), error.next))?;
    let text = std::str::from_utf8(&secret);
    let text = text.map_err(|_| problem(format!("{place} holds no text"), "write the password as UTF-8".to_owned()))?;
    Ok(Some((entry.clone(), Zeroizing::new(text.to_owned()))))
}

/// A filter with what is known of a user in place of the variables, escaped so that it stays one value. What is put in
/// is not looked at again.
fn expand(filter: &str, user: &str, entry: &str) -> String {
    let (mut expanded, mut rest) = (String::with_capacity(filter.len()), filter);
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        expanded.push_str(before);
        rest = if let Some(after) = from.strip_prefix(USER) {
            expanded.push_str(&ldap_escape(user));
            after
        } else if let Some(after) = from.strip_prefix(ENTRY) {
            expanded.push_str(&ldap_escape(entry));
            after
        } else {
            expanded.push('$');
            &from[1..]
        };
    }
    expanded.push_str(rest);
    expanded
}

fn refused(reason: &str) -> Verdict {
    Verdict::Refused(Cause::NotPermitted(reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    use super::*;
    use crate::sources::MOST_RECHECKS;

    fn ldap_at(host: &str, port: u16) -> Ldap {
        let url = LdapUrl { begins_with_tls: true, host: host.to_owned(), port };
        let text = |text: &str| text.to_owned();
        Ldap::new(&LdapSettings {
            urls: vec![url],
            authority: None,
            bind_dn: None,
            bind_password: None,
            base: Some(text("dc=example")),
            user_filter: text("(uid=$user)"),
            name_attribute: text("uid"),
            id_attribute: text("entryUUID"),
            group_base: None,
            group_filter: text("(member=$dn)"),
            group_attribute: text("cn"),
            nested_groups: false,
            timeout: Duration::from_secs(10),
        })
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn login_waits_for_a_place_and_is_told_when_there_is_none() {
        let ldap = ldap_at("ldap.example", 636);
        let strangers = ldap.at_work.acquire_many(MOST_STRANGERS as u32).await.unwrap();
        let answer = || vec![ready(Ok(1))];
        assert_eq!(ldap.in_turn(answer()).await.ok(), Some(1), "who is known finds one beside them all");
        let others = ldap.at_work.acquire_many((MOST_AT_WORK - MOST_STRANGERS) as u32).await.unwrap();
        let full = ldap.in_turn(answer()).await;
        assert!(matches!(full, Err(NoAnswer::Busy)), "that is not away: no other source gets the password");
        let (waited, ()) = tokio::join!(ldap.in_turn(answer()), async {
            tokio::time::sleep(TURN / 2).await;
            drop(strangers);
        });
        assert_eq!(waited.ok(), Some(1));
        drop(others);
        let mute = ldap.in_turn(vec![pending::<Result<u8, Away>>()]).await;
        assert!(matches!(mute, Err(NoAnswer::Away(_))), "the positive control");
    }

    #[tokio::test]
    async fn rechecks_at_a_directory_that_says_nothing_leave_all_places_to_logins() {
        let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ldap = Arc::new(ldap_at("127.0.0.1", mute.local_addr().unwrap().port()));
        let mut asking = JoinSet::new();
        for _ in 0..MOST_RECHECKS {
            let ldap = Arc::clone(&ldap);
            let alice = Person {
                source: NAME.to_owned(),
                subject: "u-1".to_owned(),
                name: "alice".to_owned(),
                groups: Vec::new(),
                methods: Vec::new(),
                session_lifetime: None,
                generation: None,
            };
            asking.spawn(async move { drop(ldap.recheck(&alice).await) });
        }
        let mut connections = Vec::new();
        for _ in 0..MOST_RECHECKS {
            connections.push(mute.accept().await.unwrap());
        }
        assert_eq!(ldap.at_work.available_permits(), MOST_AT_WORK);
        let of_login = Arc::clone(&ldap);
        asking.spawn(async move { drop(of_login.log_in("alice", &Zeroizing::new("secret".to_owned())).await) });
        connections.push(mute.accept().await.unwrap());
        assert_eq!(ldap.at_work.available_permits(), MOST_AT_WORK - 1, "the positive control");
    }
}
