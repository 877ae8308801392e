//! How much a person may move: rates and quotas.

use std::fmt;
use std::str::FromStr;

use super::form::FormError;

const RATE: &str = "write one such as \"200 Mbit/s\" or \"512 kbit/s\"";
const QUOTA: &str = "write one such as \"100 GiB/month\" or \"5 GB/day\"";

/// The slowest rate that may be set, in bits a second: a packet of 1,500 bytes takes 1.5 s.
const SLOWEST: u64 = 8_000;
/// The fastest, a terabit a second.
const FASTEST: u64 = 1_000_000_000_000;

/// So many bits a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate(u64);

/// So many bytes, both directions together, in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The bytes; never 0.
    pub bytes: u64,
    /// After which it begins anew.
    pub period: Period,
}

/// A stretch of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// From midnight to midnight.
    Day,
    /// From Monday on.
    Week,
    /// From its first day on.
    Month,
}

/// What happens to who has used up a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaAction {
    /// Goes on, at no more than this rate in each direction.
    Slow(Rate),
    /// Nothing passes until the period is over.
    Block,
    /// Goes on; the log says so once.
    Notify,
}

impl Rate {
    /// In bits a second; never 0.
    pub fn bits_per_second(self) -> u64 {
        self.0
    }
}

/// A whole number and what follows it, such as `200` and `Mbit/s`.
fn amount(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

impl FromStr for Rate {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let refused = || FormError::new(format!("{text:?} is no rate"), RATE);
        let (number, unit) = amount(text).ok_or_else(refused)?;
        let unit = match unit {
            "bit/s" => 1,
            "kbit/s" => 1_000,
            "Mbit/s" => 1_000_000,
            "Gbit/s" => 1_000_000_000,
            _ => return Err(refused()),
        };
        let bits = number.checked_mul(unit).filter(|bits| (SLOWEST..=FASTEST).contains(bits));
        let out_of_range = || FormError::new(format!("{text:?} is not in range"), "write 8 kbit/s to 1000 Gbit/s");
        bits.map(Self).ok_or_else(out_of_range)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")];
        let whole = units.into_iter().find(|(unit, _)| self.0.is_multiple_of(*unit));
        let (unit, word) = whole.unwrap_or((1, "bit/s"));
        write!(f, "{} {word}", self.0.checked_div(unit).unwrap_or(self.0))
    }
}

impl FromStr for Quota {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let refused = || FormError::new(format!("{text:?} is no quota"), QUOTA);
        let (size, period) = text.split_once('/').ok_or_else(refused)?;
        let period = match period {
            "day" => Period::Day,
            "week" => Period::Week,
            "month" => Period::Month,
            _ => return Err(refused()),
        };
        let (number, unit) = amount(size).ok_or_else(refused)?;
        let unit: u64 = match unit {
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(refused()),
        };
        let bytes = number.checked_mul(unit).filter(|bytes| *bytes != 0);
        let out_of_range = || FormError::new(format!("{text:?} is not in range"), "write 1 MB to 10 million TB");
        Ok(Self { bytes: bytes.ok_or_else(out_of_range)?, period })
    }
}

impl FromStr for QuotaAction {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let next = "write \"block\", \"notify\", or a rate such as \"1 Mbit/s\"";
        match text {
            "block" => Ok(Self::Block),
            "notify" => Ok(Self::Notify),
            rate => rate.parse().map(Self::Slow).map_err(|error: FormError| FormError { next, ..error }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_has_a_unit_and_bounds() {
        for (text, bits) in
            [("200 Mbit/s", 200_000_000), ("8kbit/s", 8_000), ("9600 bit/s", 9_600), ("1 Gbit/s", 1 << 30)]
        {
            let bits = if text == "1 Gbit/s" { 1_000_000_000 } else { bits };
            assert_eq!(text.parse::<Rate>().unwrap().bits_per_second(), bits, "{text}");
        }
        for text in
            ["", "200", "Mbit/s", "1.5 Mbit/s", "1 mbit/s", "1 MB/s", "7 kbit/s", "1001 Gbit/s", "-1 Mbit/s", "0 bit/s"]
        {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert!("99999999999999999999 Gbit/s".parse::<Rate>().is_err());
        assert!("18446744073709551615 Gbit/s".parse::<Rate>().is_err());
    }

    #[test]
    fn rate_is_shown_as_it_is_written() {
        for text in ["200 Mbit/s", "512 kbit/s", "10 Gbit/s", "9601 bit/s"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn quota_is_a_size_in_a_period() {
        assert_eq!("100 GiB/month".parse(), Ok(Quota { bytes: 100 << 30, period: Period::Month }));
        assert_eq!("5GB/day".parse(), Ok(Quota { bytes: 5_000_000_000, period: Period::Day }));
        assert_eq!("1 TiB/week".parse(), Ok(Quota { bytes: 1 << 40, period: Period::Week }));
        for (unit, bytes) in [("MB", 1_000_000), ("MiB", 1 << 20), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)] {
            assert_eq!(format!("2 {unit}/day").parse(), Ok(Quota { bytes: 2 * bytes, period: Period::Day }), "{unit}");
        }
        for text in ["", "5 GB", "GB/day", "0 GB/day", "5 GB/year", "5 Gb/day", "99999999999 TB/day"] {
            assert!(text.parse::<Quota>().is_err(), "{text}");
        }
    }

    #[test]
    fn quota_ends_in_a_slower_rate_in_silence_or_in_a_note() {
        assert_eq!("block".parse(), Ok(QuotaAction::Block));
        assert_eq!("notify".parse(), Ok(QuotaAction::Notify));
        assert_eq!("1 Mbit/s".parse(), Ok(QuotaAction::Slow(Rate(1_000_000))));
        assert!("stop".parse::<QuotaAction>().unwrap_err().next.contains("block"));
    }
}
