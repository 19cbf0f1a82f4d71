//! When a person may be disturbed: days, times and their time zone, as in `Mon-Fri 09:00-17:30 Europe/Berlin`.

use std::str::FromStr;

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;

use crate::domain::clock::Timestamp;

/// Working hours.
#[derive(Clone, Debug)]
pub struct Hours {
    first: Weekday,
    last: Weekday,
    from: Time,
    until: Time,
    zone: TimeZone,
}

/// Not working hours.
#[derive(Debug, thiserror::Error)]
pub enum HoursError {
    /// Not of this form.
    #[error("`{0}` is not of the form `Mon-Fri 09:00-17:30 Europe/Berlin`")]
    Form(String),
    /// No such time zone.
    #[error("the time zone `{0}` is not known: write it as in `Europe/Berlin`")]
    Zone(String),
}

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Monday),
    ("Tue", Weekday::Tuesday),
    ("Wed", Weekday::Wednesday),
    ("Thu", Weekday::Thursday),
    ("Fri", Weekday::Friday),
    ("Sat", Weekday::Saturday),
    ("Sun", Weekday::Sunday),
];

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let form = || HoursError::Form(text.to_owned());
        let [days, times, zone] = text.split_whitespace().collect::<Vec<_>>().try_into().map_err(|_| form())?;
        let day = |name: &str| DAYS.iter().find(|(known, _)| *known == name).map(|(_, day)| *day).ok_or_else(form);
        let time = |text: &str| match text.split_once(':') {
            Some((h, m)) if h.len() == 2 && m.len() == 2 => {
                Time::new(h.parse().map_err(|_| form())?, m.parse().map_err(|_| form())?, 0, 0).map_err(|_| form())
            }
            _ => Err(form()),
        };
        let (first, last) = days.split_once('-').unwrap_or((days, days));
        let (from, until) = times.split_once('-').ok_or_else(form)?;
        let hours = Self {
            first: day(first)?,
            last: day(last)?,
            from: time(from)?,
            until: time(until)?,
            zone: TimeZone::get(zone).map_err(|_| HoursError::Zone(zone.to_owned()))?,
        };
        if hours.from < hours.until { Ok(hours) } else { Err(form()) }
    }
}

impl Hours {
    /// Whether `now` lies in them.
    pub fn contains(&self, now: Timestamp) -> bool {
        let Ok(instant) = jiff::Timestamp::from_millisecond(now.0) else { return true };
        let local = instant.to_zoned(self.zone.clone());
        let day = local.weekday().to_monday_zero_offset();
        let (first, last) = (self.first.to_monday_zero_offset(), self.last.to_monday_zero_offset());
        let in_days = if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last };
        in_days && (self.from..self.until).contains(&local.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_follow_the_zone_and_its_summer_time() {
        let hours: Hours = "Mon-Fri 09:00-17:30 Europe/Berlin".parse().unwrap();
        let at = |text: &str| hours.contains(Timestamp(text.parse::<jiff::Timestamp>().unwrap().as_millisecond()));
        assert!(at("2026-11-23T08:00:00Z") && !at("2026-11-23T07:59:59Z"));
        assert!(at("2026-07-01T07:00:00Z"), "summer time");
        assert!(!at("2026-11-23T16:30:00Z") && !at("2026-11-22T10:00:00Z"));
        let weekend: Hours = "Sat-Mon 00:00-23:59 UTC".parse().unwrap();
        assert!(weekend.contains(Timestamp(4 * 86_400_000)) && !weekend.contains(Timestamp(0)), "Monday, and Thursday");
        for wrong in ["", "9-5", "Mon-Fri 9:00-17:00 UTC", "Mon-Fri 17:00-09:00 UTC", "Mo-Fr 09:00-17:00 UTC", "Mon-Fri 09:00-17:00"] {
            assert!(matches!(wrong.parse::<Hours>(), Err(HoursError::Form(_))), "{wrong}");
        }
        assert!(matches!("Mon 09:00-17:00 Europe/Atlantis".parse::<Hours>(), Err(HoursError::Zone(_))));
    }
}
