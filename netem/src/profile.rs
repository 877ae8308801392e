//! What a network does to frames, as a file in TOML says it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use adit_program::exit::{Exit, Failure};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::bursts::Bursts;

/// The profiles that are part of this program: name and file.
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

/// How alike a key must be to be offered instead (Jaro-Winkler, 0 to 1).
const SIMILAR: f64 = 0.8;

/// What a network does to the frames of both directions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Its name: a shipped one's, or that of its file.
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
    #[must_use]
    pub fn longest_delay(&self) -> Duration {
        // What was not read from a profile's file may be no time at all.
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

impl Profile {
    /// The shipped profile of that name, else the one in the file of that name.
    ///
    /// # Errors
    ///
    /// Fails with exit code 2, and names the file, the key, what is wrong and what to do.
    pub fn named(name: &str) -> Result<Self, Failure> {
        if let Some((_, text)) = SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
            return Self::parse(name, text);
        }
        let text = fs::read_to_string(name).map_err(|error| {
            let reason = format!("is no shipped profile, and no file that can be read: {error}");
            let close = closest(name, shipped());
            let all = || format!("name a file, or one of {}", shipped().collect::<Vec<_>>().join(", "));
            let next = close.map_or_else(all, |close| format!("did you mean `{close}`?"));
            Failure::new(Exit::Usage, name, reason, next)
        })?;
        Self::parse(name, &text)
    }

    /// Reads a profile from the contents of a file.
    ///
    /// # Errors
    ///
    /// As [`Self::named`].
    pub fn parse(file: &str, text: &str) -> Result<Self, Failure> {
        let syntax = |error: toml::de::Error| {
            Failure::new(Exit::Usage, file, format!("is no TOML: {}", error.to_string().trim_end()), "mend the file")
        };
        let mut both: Table = text.parse().map_err(syntax)?;
        let description = match both.remove(DESCRIPTION) {
            None => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => return Err(wrong(file, DESCRIPTION, &format!("{other} is no text"), "put it in quotes")),
        };
        let mut links = Vec::new();
        for direction in DIRECTIONS {
            let own = match both.remove(direction) {
                None => Table::new(),
                Some(Value::Table(own)) => own,
                Some(other) => {
                    let next = format!("write [{direction}] and its keys below");
                    return Err(wrong(file, direction, &format!("{other} is no table"), &next));
                }
            };
            links.push((direction, own));
        }
        check(file, "", &both)?;
        let mut links = links.into_iter().map(|(direction, own)| link(file, direction, &both, own));
        let (up, down) = (links.next().transpose()?.unwrap_or_default(), links.next().transpose()?.unwrap_or_default());
        let name = Path::new(file).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, description, up, down })
    }
}

/// The link of one direction: what is said of both, with what is said of it alone in its place.
fn link(file: &str, direction: &str, both: &Table, own: Table) -> Result<Link, Failure> {
    let section = format!("[{direction}] ");
    check(file, &section, &own)?;
    let mut all = both.clone();
    if QUEUES.iter().any(|key| own.contains_key(*key)) {
        all.retain(|key, _| !QUEUES.contains(&key));
    }
    all.extend(own);
    let link: Link = Value::Table(all)
        .try_into()
        .map_err(|error: toml::de::Error| wrong(file, &section, error.to_string().trim_end(), "mend the file"))?;
    agree(file, &section, &link)?;
    Ok(link)
}

/// Checks each key by itself.
fn check(file: &str, section: &str, table: &Table) -> Result<(), Failure> {
    for (key, value) in table {
        let name = format!("{section}{key}");
        if key == DISTRIBUTION {
            if !value.as_str().is_some_and(|text| DISTRIBUTIONS.contains(&text)) {
                let next = "write \"uniform\" or \"normal\"";
                return Err(wrong(file, &name, &format!("{value} is no distribution"), next));
            }
            continue;
        }
        let Some((_, least, most)) = NUMBERS.iter().find(|(known, ..)| known == key) else {
            return Err(unknown(file, &name, key));
        };
        #[expect(clippy::cast_precision_loss, reason = "what is beyond 52 bits is out of range anyway")]
        let number = value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64));
        let Some(number) = number else {
            let next = "write a number, without unit and quotes";
            return Err(wrong(file, &name, &format!("{value} is no number"), next));
        };
        if !(*least..=*most).contains(&number) {
            let next = format!("write a number from {least} to {most}");
            return Err(wrong(file, &name, &format!("{number} is out of range"), &next));
        }
    }
    Ok(())
}

/// Checks what has to do with each other.
fn agree(file: &str, section: &str, link: &Link) -> Result<(), Failure> {
    let fail = |key: &str, reason: &str, next: &str| Err(wrong(file, &format!("{section}{key}"), reason, next));
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

fn wrong(file: &str, key: &str, reason: &str, next: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{file}: {}", key.trim_end()), reason, next)
}

fn unknown(file: &str, name: &str, key: &str) -> Failure {
    let keys = || NUMBERS.iter().map(|(known, ..)| *known).chain([DISTRIBUTION, DESCRIPTION]).chain(DIRECTIONS);
    let all = || format!("known are {}", keys().collect::<Vec<_>>().join(", "));
    let next = closest(key, keys()).map_or_else(all, |close| format!("did you mean `{close}`?"));
    wrong(file, name, "is no key of a profile", &next)
}

fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let known = known.map(|other| (strsim::jaro_winkler(name, other), other));
    let close = known.filter(|(likeness, _)| *likeness >= SIMILAR).max_by(|a, b| a.0.total_cmp(&b.0));
    close.map(|(_, other)| other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_profiles_are_valid_and_say_what_they_resemble() {
        for name in shipped() {
            let profile = Profile::named(name).unwrap();
            assert_eq!(profile.name, name);
            assert!(!profile.description.is_empty());
        }
        let clean = Profile::named("clean").unwrap();
        assert_eq!((clean.up, clean.down), (Link::default(), Link::default()));
        let far = Profile::named("transatlantic").unwrap();
        assert!((far.up.delay_ms + far.down.delay_ms - 80.0).abs() < f64::EPSILON);
    }

    #[test]
    fn directions_differ_in_what_is_said_of_them() {
        let both = "delay_ms = 5\nrate_mbit = 50\nqueue_ms = 40";
        let text = format!("{both}\n[up]\nrate_mbit = 10\nqueue_kib = 64\n[down]\njitter_ms = 1.5");
        let profile = Profile::parse("/tmp/my.toml", &text).unwrap();
        let common = Link { delay_ms: 5.0, ..Link::default() };
        let up = Link { rate_mbit: Some(10.0), queue_kib: Some(64.0), ..common };
        let down = Link { rate_mbit: Some(50.0), queue_ms: Some(40.0), jitter_ms: 1.5, ..common };
        assert_eq!((profile.name.as_str(), profile.up, profile.down), ("my", up, down));
    }

    #[test]
    fn profile_survives_its_own_json() {
        let profile = Profile::named("lossy-wifi").unwrap();
        let json = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&json).unwrap(), profile);
    }

    /// What is said about a file that is wrong.
    fn refusal(text: &str) -> String {
        let failure = Profile::parse("bad.toml", text).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(!failure.next.is_empty());
        failure.to_string()
    }

    #[test]
    fn faults_are_named_with_file_key_reason_and_next_step() {
        let cases = [
            ("dely_ms = 3", "bad.toml: dely_ms: is no key of a profile\n  next: did you mean `delay_ms`?"),
            ("[up]\nloss = 3", "bad.toml: [up] loss: is no key of a profile"),
            ("delay_ms = -1", "bad.toml: delay_ms: -1 is out of range\n  next: write a number from 0 to 10000"),
            ("delay_ms = nan", "bad.toml: delay_ms: NaN is out of range"),
            ("[down]\nloss_percent = 100", "bad.toml: [down] loss_percent: 100 is out of range"),
            ("delay_ms = \"3ms\"", "bad.toml: delay_ms: \"3ms\" is no number"),
            ("up = 3", "bad.toml: up: 3 is no table\n  next: write [up] and its keys below"),
            ("jitter_distribution = \"pareto\"", "bad.toml: jitter_distribution: \"pareto\" is no distribution"),
            ("rate_mbit = 3", "bad.toml: [up] rate_mbit: has no queue\n  next: add queue_ms or queue_kib"),
            ("queue_ms = 3", "bad.toml: [up] queue_ms: has no rate"),
            ("rate_mbit = 3\nqueue_ms = 3\nqueue_kib = 3", "bad.toml: [up] queue_kib: there is a queue_ms too"),
            ("reorder_percent = 3", "bad.toml: [up] reorder_percent: frames must be held back for some time"),
            ("jitter_correlation_percent = 3", "bad.toml: [up] jitter_correlation_percent: there is no jitter"),
            ("loss_percent = 80\nloss_burst_packets = 2", "bad.toml: [up] loss_burst_packets: bursts of 2 cannot make"),
            ("description = 3", "bad.toml: description: 3 is no text"),
            ("delay_ms 3", "bad.toml: is no TOML: TOML parse error at line 1"),
        ];
        for (text, expected) in cases {
            let said = refusal(text);
            assert!(said.starts_with(expected), "{text}: {said}");
        }
    }

    #[test]
    fn unknown_name_is_a_usage_failure_with_a_suggestion() {
        let failure = Profile::named("trans-atlantic").unwrap_err();
        assert_eq!((failure.exit, failure.next.as_str()), (Exit::Usage, "did you mean `transatlantic`?"));
        assert!(Profile::named("/nonexistent/x.toml").unwrap_err().next.contains("clean, dsl, lte"));
    }
}
