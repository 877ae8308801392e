//! What a network does to frames, as a text in TOML says it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use toml::{Table, Value};

use crate::bursts::Bursts;

/// The profiles that are part of this program: name and text.
const SHIPPED: [(&str, &str); 5] = [
    ("clean", include_str!("../profiles/clean.toml")),
    ("dsl", include_str!("../profiles/dsl.toml")),
    ("lte", include_str!("../profiles/lte.toml")),
    ("transatlantic", include_str!("../profiles/transatlantic.toml")),
    ("lossy-wifi", include_str!("../profiles/lossy-wifi.toml")),
];

/// Keys whose values are numbers, with the least and the most they may be.
const NUMBERS: [(&str, f64, f64); 12] = [
    ("delay_ms", 0.0, 10_000.0),
    ("jitter_ms", 0.0, 10_000.0),
    ("jitter_correlation_percent", 0.0, 99.9),
    ("loss_percent", 0.0, 99.0),
    ("loss_burst_packets", 1.0, 10_000.0),
    ("reorder_percent", 0.0, 100.0),
    ("reorder_ms", 0.0, 10_000.0),
    ("duplicate_percent", 0.0, 100.0),
    ("corrupt_percent", 0.0, 100.0),
    ("rate_mbit", 0.01, 100_000.0),
    ("queue_ms", 0.1, 60_000.0),
    ("queue_kib", 0.1, 1_048_576.0),
];
const DISTRIBUTION: &str = "jitter_distribution";
const DISTRIBUTIONS: [&str; 2] = ["uniform", "normal"];
const DESCRIPTION: &str = "description";
const DIRECTIONS: [&str; 2] = ["up", "down"];
/// Two ways to say the same: a direction that says it in one is not bound to the other of both.
const QUEUES: [&str; 2] = ["queue_ms", "queue_kib"];

/// What a network does to the frames of both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name: a shipped one's, or what the reader of its text called it.
    pub name: String,
    /// What kind of network it resembles.
    pub description: String,
    /// From the client to the gateway.
    pub up: Link,
    /// From the gateway to the client.
    pub down: Link,
}

/// What a network does to the frames of one direction; by default nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Link {
    /// Time every frame takes, in milliseconds.
    pub delay_ms: f64,
    /// Most that is added to it, from frame to frame another part of it.
    pub jitter_ms: f64,
    /// How these parts are distributed.
    pub jitter_distribution: JitterDistribution,
    /// How alike they are of two neighbours, of 100.
    pub jitter_correlation_percent: f64,
    /// Frames lost, of 100.
    pub loss_percent: f64,
    /// Mean number of consecutive frames that are lost together; `None` where each is lost by itself.
    pub loss_burst_packets: Option<f64>,
    /// Frames held back, of 100.
    pub reorder_percent: f64,
    /// For how long, in milliseconds.
    pub reorder_ms: f64,
    /// Frames that arrive twice, of 100.
    pub duplicate_percent: f64,
    /// Frames in which a bit is flipped, of 100.
    pub corrupt_percent: f64,
    /// Million bits per second, of frames with their Ethernet header; `None` where there is no limit.
    pub rate_mbit: Option<f64>,
    /// What waits for that rate at most, in milliseconds.
    pub queue_ms: Option<f64>,
    /// The same in units of 1,024 bytes.
    pub queue_kib: Option<f64>,
}

impl Link {
    /// The longest that delay and jitter keep a frame.
    pub fn longest_delay(&self) -> Duration {
        // A link that no text was read for may hold numbers that are no time at all.
        Duration::try_from_secs_f64((self.delay_ms + self.jitter_ms) / 1e3).unwrap_or_default()
    }
}

/// How the parts of the jitter are distributed between none and all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JitterDistribution {
    /// Evenly.
    #[default]
    Uniform,
    /// Around the middle, with a sixth of the jitter as standard deviation.
    Normal,
}

/// The names of the profiles that are part of this program.
pub fn shipped() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// Why a text is no profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{reason}", self.key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
pub struct ProfileError {
    /// The key that is wrong, after its table where it is in one, such as `[up] loss_percent`; `None` for the whole
    /// text.
    pub key: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// What its writer can do.
    pub remedy: Remedy,
}

/// What the writer of a profile can do about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// What the sentence says.
    Do(String),
    /// Take one of these keys instead of the one that nobody knows.
    KeyOf {
        /// The key as it was written, without its table.
        written: String,
        /// Every key that is known.
        known: Vec<&'static str>,
    },
}

impl ProfileError {
    fn of_key(key: &str, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        let key = Some(key.trim_end().to_owned());
        Self { key, reason: reason.into(), remedy: Remedy::Do(remedy.into()) }
    }

    fn of_unknown_key(section: &str, key: &str) -> Self {
        let known = NUMBERS.iter().map(|(known, ..)| *known).chain([DISTRIBUTION, DESCRIPTION]).chain(DIRECTIONS);
        let remedy = Remedy::KeyOf { written: key.to_owned(), known: known.collect() };
        Self { key: Some(format!("{section}{key}")), reason: "is no key of a profile".to_owned(), remedy }
    }

    fn of_syntax(error: &toml::de::Error) -> Self {
        let reason = format!("is no TOML: {}", error.to_string().trim_end());
        Self { key: None, reason, remedy: Remedy::Do("mend the file".to_owned()) }
    }
}

impl Profile {
    /// The profile of that name among those that are part of this program.
    pub fn shipped(name: &str) -> Option<Self> {
        let (_, text) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
        Some(Self::parse(name, text).expect("shipped profiles are valid: a test reads each"))
    }

    /// Reads the text of a profile, which is called `name` from here on.
    ///
    /// # Errors
    /// Fails at the first key that is unknown, out of its range, or at odds with another.
    pub fn parse(name: &str, text: &str) -> Result<Self, ProfileError> {
        let mut both: Table = text.parse().map_err(|error| ProfileError::of_syntax(&error))?;
        let description = match both.remove(DESCRIPTION) {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => {
                return Err(ProfileError::of_key(DESCRIPTION, format!("{other} is no text"), "put it in quotes"));
            }
        };
        let [own_up, own_down] = DIRECTIONS.map(|direction| own_table(&mut both, direction));
        let (own_up, own_down) = (own_up?, own_down?);
        check("", &both)?;
        let [up, down] = DIRECTIONS;
        let (up, down) = (link(up, &both, own_up)?, link(down, &both, own_down)?);
        Ok(Self { name: name.to_owned(), description, up, down })
    }
}

/// Takes out what a profile says of one direction alone.
fn own_table(both: &mut Table, direction: &str) -> Result<Table, ProfileError> {
    match both.remove(direction) {
        None => Ok(Table::new()),
        Some(Value::Table(own)) => Ok(own),
        Some(other) => {
            let remedy = format!("write [{direction}] and its keys below");
            Err(ProfileError::of_key(direction, format!("{other} is no table"), remedy))
        }
    }
}

/// The link of one direction: what is said of both, with what is said of it alone in its place.
fn link(direction: &str, both: &Table, own: Table) -> Result<Link, ProfileError> {
    let section = format!("[{direction}] ");
    check(&section, &own)?;
    let mut all = both.clone();
    if QUEUES.iter().any(|key| own.contains_key(*key)) {
        all.retain(|key, _| !QUEUES.contains(&key));
    }
    all.extend(own);
    let link: Link = Value::Table(all).try_into().map_err(|error: toml::de::Error| {
        ProfileError::of_key(&section, error.to_string().trim_end(), "mend the file")
    })?;
    agree(&section, &link)?;
    Ok(link)
}

/// Checks each key by itself.
fn check(section: &str, table: &Table) -> Result<(), ProfileError> {
    for (key, value) in table {
        let name = format!("{section}{key}");
        if key == DISTRIBUTION {
            if !value.as_str().is_some_and(|text| DISTRIBUTIONS.contains(&text)) {
                let remedy = "write \"uniform\" or \"normal\"";
                return Err(ProfileError::of_key(&name, format!("{value} is no distribution"), remedy));
            }
            continue;
        }
        let Some((_, least, most)) = NUMBERS.iter().find(|(known, ..)| known == key) else {
            return Err(ProfileError::of_unknown_key(section, key));
        };
        #[expect(clippy::cast_precision_loss, reason = "what is beyond 52 bits is out of range anyway")]
        let number = value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64));
        let Some(number) = number else {
            let remedy = "write a number, without unit and quotes";
            return Err(ProfileError::of_key(&name, format!("{value} is no number"), remedy));
        };
        if !(*least..=*most).contains(&number) {
            let remedy = format!("write a number from {least} to {most}");
            return Err(ProfileError::of_key(&name, format!("{number} is out of range"), remedy));
        }
    }
    Ok(())
}

/// Checks keys against each other.
fn agree(section: &str, link: &Link) -> Result<(), ProfileError> {
    let fail =
        |key: &str, reason: &str, remedy: &str| Err(ProfileError::of_key(&format!("{section}{key}"), reason, remedy));
    match (link.rate_mbit, link.queue_ms, link.queue_kib) {
        (_, Some(_), Some(_)) => return fail("queue_kib", "there is a queue_ms too", "leave one of them out"),
        (Some(_), None, None) => return fail("rate_mbit", "has no queue", "add queue_ms or queue_kib"),
        (None, Some(_), None) => return fail("queue_ms", "has no rate", "add rate_mbit"),
        (None, None, Some(_)) => return fail("queue_kib", "has no rate", "add rate_mbit"),
        (Some(_), ..) | (None, None, None) => {}
    }
    if link.reorder_percent > 0.0 && link.reorder_ms <= 0.0 {
        return fail("reorder_percent", "frames must be held back for some time", "add reorder_ms");
    }
    if link.jitter_correlation_percent > 0.0 && link.jitter_ms <= 0.0 {
        return fail("jitter_correlation_percent", "there is no jitter", "add jitter_ms, or leave it out");
    }
    let shortest = Bursts::shortest(link.loss_percent / 100.0);
    if let Some(mean) = link.loss_burst_packets.filter(|mean| *mean < shortest) {
        let reason = format!("bursts of {mean} cannot make up {} % of all frames", link.loss_percent);
        return fail("loss_burst_packets", &reason, &format!("write at least {}", (shortest * 100.0).ceil() / 100.0));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_profiles_are_valid_and_say_what_they_resemble() {
        for name in shipped() {
            let profile = Profile::shipped(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(!profile.description.is_empty());
        }
        let clean = Profile::shipped("clean").unwrap();
        assert_eq!((clean.up, clean.down), (Link::default(), Link::default()));
        let far = Profile::shipped("transatlantic").unwrap();
        assert!((far.up.delay_ms + far.down.delay_ms - 80.0).abs() < f64::EPSILON);
    }

    #[test]
    fn directions_differ_in_what_is_said_of_them() {
        let both = "delay_ms = 5\nrate_mbit = 50\nqueue_ms = 40";
        let text = format!("{both}\n[up]\nrate_mbit = 10\nqueue_kib = 64\n[down]\njitter_ms = 1.5");
        let profile = Profile::parse("my", &text).unwrap();
        let common = Link { delay_ms: 5.0, ..Link::default() };
        let up = Link { rate_mbit: Some(10.0), queue_kib: Some(64.0), ..common };
        let down = Link { rate_mbit: Some(50.0), queue_ms: Some(40.0), jitter_ms: 1.5, ..common };
        assert_eq!((profile.name.as_str(), profile.up, profile.down), ("my", up, down));
    }

    #[test]
    fn profile_survives_its_own_json() {
        let profile = Profile::shipped("lossy-wifi").unwrap();
        let json = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);
    }

    #[test]
    fn faults_are_named_with_key_reason_and_remedy() {
        let cases = [
            ("delay_ms = -1", "delay_ms: -1 is out of range", "write a number from 0 to 10000"),
            ("delay_ms = nan", "delay_ms: NaN is out of range", "write a number from 0 to 10000"),
            ("[down]\nloss_percent = 100", "[down] loss_percent: 100 is out of range", "write a number from 0 to 99"),
            ("delay_ms = \"3ms\"", "delay_ms: \"3ms\" is no number", "write a number, without unit and quotes"),
            ("up = 3", "up: 3 is no table", "write [up] and its keys below"),
            (
                "jitter_distribution = \"pareto\"",
                "jitter_distribution: \"pareto\" is no distribution",
                "write \"uniform\" or \"normal\"",
            ),
            ("rate_mbit = 3", "[up] rate_mbit: has no queue", "add queue_ms or queue_kib"),
            ("queue_ms = 3", "[up] queue_ms: has no rate", "add rate_mbit"),
            (
                "rate_mbit = 3\nqueue_ms = 3\nqueue_kib = 3",
                "[up] queue_kib: there is a queue_ms too",
                "leave one of them",
            ),
            ("reorder_percent = 3", "[up] reorder_percent: frames must be held back for some time", "add reorder_ms"),
            ("jitter_correlation_percent = 3", "[up] jitter_correlation_percent: there is no jitter", "add jitter_ms"),
            (
                "loss_percent = 80\nloss_burst_packets = 2",
                "[up] loss_burst_packets: bursts of 2 cannot make up 80 %",
                "write at least 4",
            ),
            ("description = 3", "description: 3 is no text", "put it in quotes"),
            ("delay_ms 3", "is no TOML: TOML parse error at line 1", "mend the file"),
        ];
        for (text, expected, remedy) in cases {
            let error = Profile::parse("bad", text).unwrap_err();
            assert!(error.to_string().starts_with(expected), "{text}: {error}");
            let Remedy::Do(advice) = &error.remedy else { panic!("{text}: {error:?}") };
            assert!(advice.starts_with(remedy), "{text}: {advice}");
        }
    }

    #[test]
    fn unknown_key_is_named_with_its_table_and_all_that_are_known() {
        for (text, place, key) in [("dely_ms = 3", "dely_ms", "dely_ms"), ("[up]\nloss = 3", "[up] loss", "loss")] {
            let error = Profile::parse("bad", text).unwrap_err();
            assert_eq!(error.to_string(), format!("{place}: is no key of a profile"));
            let Remedy::KeyOf { written, known } = error.remedy else { panic!("{text}") };
            assert!(written == key && known.contains(&"delay_ms") && known.contains(&"up"), "{written} {known:?}");
        }
    }

    #[test]
    fn only_shipped_profiles_are_known_by_name() {
        assert_eq!(Profile::shipped("trans-atlantic"), None);
    }
}
