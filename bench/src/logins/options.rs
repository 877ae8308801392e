//! What a flood of logins can be told.

use std::time::Duration;

use clap::Args;

/// How long each flood of a quick run lasts.
const QUICK: Duration = Duration::from_secs(4);
/// How long the gateway keeps connections of strangers that do nothing, and a moment more.
const FAREWELL: Duration = Duration::from_secs(12);

/// What a flood of logins can be told.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// How many wrong passwords come each second.
    #[arg(long, default_value = "1000/s", value_name = "N/s", value_parser = rate)]
    rate: u32,
    /// How long each flood lasts, and each time without one before it.
    #[arg(long, default_value = "15s", value_parser = duration)]
    duration: Duration,
    /// How often a flood from one address and one from many are seen.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MOST_ROUNDS)))]
    rounds: u8,
    /// Logins whose time is compared with that of their hash.
    #[arg(long, default_value_t = 31, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pairs: u32,
    /// One short round with a tenth of the rate: enough to see that everything works.
    #[arg(long, conflicts_with_all = ["rate", "duration", "rounds", "pairs"])]
    quick: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

/// Most rounds: each has addresses of its own.
pub(super) const MOST_ROUNDS: u8 = 8;

impl Options {
    /// Wrong passwords a second.
    pub(super) fn rate(&self) -> u32 {
        if self.quick { 100 } else { self.rate }
    }

    /// How long each flood lasts.
    pub(super) fn duration(&self) -> Duration {
        if self.quick { QUICK } else { self.duration }
    }

    /// How often both floods are seen.
    pub(super) fn rounds(&self) -> u8 {
        if self.quick { 1 } else { self.rounds }
    }

    /// How long after the last flood the gateway's memory is looked at.
    pub(super) fn farewell(&self) -> Duration {
        if self.quick { Duration::ZERO } else { FAREWELL }
    }

    /// Logins that are compared with their hash.
    pub(super) fn pairs(&self) -> u32 {
        if self.quick { 3 } else { self.pairs }
    }
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse().ok();
    let number = number.filter(|number| (10..=1_600).contains(number));
    number.ok_or_else(|| "a number of passwords per second from 10/s to 1600/s is needed".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let is_sensible = (Duration::from_secs(4)..=Duration::from_secs(300)).contains(&time);
    is_sensible.then_some(time).ok_or_else(|| "a time from 4s to 5m is needed".to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    /// What a command line says.
    pub(in super::super) fn parsed(arguments: &[&str]) -> Options {
        Program::try_parse_from([&["logins"], arguments].concat()).unwrap().options
    }

    #[test]
    fn rates_and_durations_have_bounds() {
        assert_eq!((rate("1000/s"), rate("10")), (Ok(1_000), Ok(10)));
        for wrong in ["", "9/s", "1601/s", "-1", "1000/m"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(duration("10").is_err() && duration("3s").is_err() && duration("1h").is_err());
    }
}
