//! When in the week a person may be connected.

use std::str::FromStr;

use super::form::FormError;

const NEXT: &str = "write days, times and a time zone, such as \"Mon-Fri 07:00-20:00 Europe/Berlin\"";
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MINUTES_OF_A_DAY: u16 = 24 * 60;

/// The same hours on some days of each week, by the clocks of one time zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hours {
    /// On which days they begin, from Monday on.
    days: [bool; 7],
    /// The first minute of the day.
    from: u16,
    /// The first minute that is no more one of them; not after `from` where they go on past midnight.
    until: u16,
    zone: String,
}

impl Hours {
    /// The name of the time zone (IANA), whose clocks count. Whether there is such a zone is for the reader to find
    /// out.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Tells whether a moment is one of them, which the zone's clocks show as a day of the week (0 is Monday) and the
    /// minutes since midnight.
    pub fn contain(&self, weekday: usize, minute: u16) -> bool {
        let begins_on = |day: usize| self.days.get(day % 7).copied().unwrap_or(false);
        let yesterday = weekday.saturating_add(6);
        if self.from < self.until {
            return begins_on(weekday) && (self.from..self.until).contains(&minute);
        }
        (begins_on(weekday) && minute >= self.from) || (begins_on(yesterday) && minute < self.until)
    }
}

impl FromStr for Hours {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let refused = |what: &str| FormError::new(format!("{text:?} {what}"), NEXT);
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let (Some(days), Some(times), Some(zone), None) = (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(refused("says no hours of a week"));
        };
        let (from, until) = times.split_once('-').ok_or_else(|| refused("has no end"))?;
        let [from, until] = [from, until].map(|time| minute(time).ok_or_else(|| refused("has a wrong time")));
        let (from, until) = (from?, until?);
        if from == MINUTES_OF_A_DAY {
            return Err(refused("begins when the day is over"));
        }
        let days = week(days).ok_or_else(|| refused("has a wrong day"))?;
        Ok(Self { days, from, until, zone: zone.to_owned() })
    }
}

/// `07:30` in minutes since midnight; `24:00` is the end of the day.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| plain)
    };
    let (hours, minutes) = (number(hours)?, number(minutes).filter(|minutes| *minutes < 60)?);
    hours.checked_mul(60)?.checked_add(minutes).filter(|minute| *minute <= MINUTES_OF_A_DAY)
}

/// Days and ranges of days, separated by commas.
fn week(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|known| *known == name);
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        *days.get_mut(at)? = true;
        while at != last {
            at = at.checked_add(1)? % 7;
            *days.get_mut(at)? = true;
        }
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, day: &str, time: &str) -> bool {
        let day = DAYS.iter().position(|known| *known == day).unwrap();
        text.parse::<Hours>().unwrap().contain(day, minute(time).unwrap())
    }

    #[test]
    fn hours_of_a_working_week_begin_and_end_to_the_minute() {
        let work = "Mon-Fri 07:00-20:00 Europe/Berlin";
        assert!(at(work, "Mon", "07:00") && at(work, "Fri", "19:59"));
        assert!(!at(work, "Mon", "06:59") && !at(work, "Mon", "20:00") && !at(work, "Sat", "12:00"));
        assert_eq!(work.parse::<Hours>().unwrap().zone(), "Europe/Berlin");
    }

    #[test]
    fn hours_past_midnight_belong_to_the_day_they_began_on() {
        let night = "Fri 22:00-06:00 UTC";
        assert!(at(night, "Fri", "22:00") && at(night, "Sat", "05:59"));
        assert!(!at(night, "Sat", "06:00") && !at(night, "Fri", "05:59") && !at(night, "Sat", "22:00"));
        let from_sunday = "Sun 23:00-01:00 UTC";
        assert!(at(from_sunday, "Mon", "00:30") && !at(from_sunday, "Sun", "00:30"));
        let around = "Sat-Sun 08:00-08:00 UTC";
        assert!(at(around, "Sat", "08:00") && at(around, "Mon", "07:59"));
        assert!(!at(around, "Mon", "08:00") && !at(around, "Sat", "07:59"));
    }

    #[test]
    fn days_are_listed_and_may_go_round_the_week() {
        let text = "Sat-Mon,Wed 00:00-24:00 UTC";
        let open = DAYS.map(|day| at(text, day, "23:59"));
        assert_eq!(open, [true, false, true, false, false, true, true]);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "Mon-Fri",
            "Mon-Fri 07:00-20:00",
            "07:00-20:00 UTC",
            "Mon 7:00-20:00 UTC",
            "Mon 07:00 UTC",
            "Mon 07:60-08:00 UTC",
            "Mon 07:00-24:01 UTC",
            "Mon 24:00-07:00 UTC",
            "mon 07:00-08:00 UTC",
            "Mon- 07:00-08:00 UTC",
            "Mon 07:00-08:00 UTC x",
        ] {
            assert!(text.parse::<Hours>().unwrap_err().next.contains("time zone"), "{text}");
        }
    }
}
