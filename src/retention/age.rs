//! Lengths of time as people write them: `2y5m7d3h`, `4w`, `"7 days"`. `m` means months, as in other backup programs.
//!
//! Years, months, weeks and days go by the calendar of a time zone, hours by the clock.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// A length of time. All zero is none at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Age {
    pub years: u32,
    pub months: u32,
    pub weeks: u32,
    pub days: u32,
    pub hours: u32,
}

impl Age {
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }

    /// The moment that lies so long before `moment`; the beginning of time if that is before it.
    pub fn before(&self, moment: Timestamp, zone: &TimeZone) -> Timestamp {
        let zoned = moment.to_zoned(zone.clone());
        let earlier = self.span().and_then(|span| zoned.checked_sub(span));
        earlier.map_or(Timestamp::MIN, |earlier| earlier.timestamp())
    }

    fn span(&self) -> Result<Span, jiff::Error> {
        let span = Span::new().try_years(self.years)?.try_months(self.months)?.try_weeks(self.weeks)?;
        span.try_days(self.days)?.try_hours(self.hours)
    }

    fn part(&mut self, unit: &str) -> Option<&mut u32> {
        Some(match unit {
            "y" | "year" | "years" => &mut self.years,
            "m" | "month" | "months" => &mut self.months,
            "w" | "week" | "weeks" => &mut self.weeks,
            "d" | "day" | "days" => &mut self.days,
            "h" | "hour" | "hours" => &mut self.hours,
            _ => return None,
        })
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write a length of time like 7d, 4w, 2y5m7d3h or \"7 days\"; m means months".to_owned();
        let mut age = Self::default();
        let mut seen: Vec<char> = Vec::new();
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, behind) = cut(rest, |c| c.is_ascii_digit());
            let (unit, behind) = cut(behind.trim_start(), |c| c.is_ascii_alphabetic());
            let unit = unit.to_ascii_lowercase();
            let number: u32 = number.parse().map_err(|_| wrong())?;
            *age.part(&unit).ok_or_else(wrong)? = number;
            let letter = unit.chars().next().ok_or_else(wrong)?;
            if seen.contains(&letter) {
                return Err(format!("{unit} is there twice"));
            }
            seen.push(letter);
            rest = behind.trim_start();
        }
        Ok(age)
    }
}

/// What fits at the beginning, and the rest.
fn cut(text: &str, fits: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !fits(c)).unwrap_or(text.len()))
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.years, 'y'), (self.months, 'm'), (self.weeks, 'w'), (self.days, 'd'), (self.hours, 'h')];
        if self.is_zero() {
            return f.write_str("0h");
        }
        parts.iter().filter(|(number, _)| *number > 0).try_for_each(|(number, unit)| write!(f, "{number}{unit}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_people_write_them() {
        for (text, shown) in [
            ("2y5m7d3h", "2y5m7d3h"),
            ("7d", "7d"),
            ("4w", "4w"),
            ("7 days", "7d"),
            ("1 year 2 months", "1y2m"),
            ("  36H ", "36h"),
            ("0d", "0h"),
            ("3h7d", "7d3h"),
        ] {
            assert_eq!(text.parse::<Age>().unwrap().to_string(), shown, "{text}");
        }
        for wrong in
            ["", " ", "7", "d", "7x", "-7d", "7d7d", "7d 8 days", "7,5d", "99999999999d", "7 d x", "7\u{660}d", "é", "1y\u{0}", "7days8"]
        {
            assert!(wrong.parse::<Age>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn days_go_by_the_calendar_and_hours_by_the_clock() {
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        let check = |age: &str, moment: &str, expected: &str| {
            let moment: Timestamp = moment.parse().unwrap();
            assert_eq!(age.parse::<Age>().unwrap().before(moment, &berlin).to_string(), expected, "{age} before {moment}");
        };
        // Clocks went from 02:00 to 03:00 on 2026-03-29: that day had 23 hours.
        check("1d", "2026-03-29T10:00:00Z", "2026-03-28T11:00:00Z");
        check("24h", "2026-03-29T10:00:00Z", "2026-03-28T10:00:00Z");
        check("1m", "2026-03-31T10:00:00Z", "2026-02-28T11:00:00Z");
        check("1y", "2028-02-29T10:00:00Z", "2027-02-28T10:00:00Z");
        check("1w1d", "2026-11-21T02:00:00Z", "2026-11-13T02:00:00Z");
        // Before all calendars.
        for age in ["4000000000y", "4000000000h", "19998y", "4000000000m4000000000d"] {
            check(age, "2026-11-21T02:00:00Z", &Timestamp::MIN.to_string());
        }
        let age: Age = "4000000000y".parse().unwrap();
        assert_eq!(age.before(Timestamp::MIN, &TimeZone::UTC), Timestamp::MIN);
    }
}
