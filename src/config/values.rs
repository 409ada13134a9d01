//! Values that are written as texts: lengths of time, sizes, shares, ranges, times of the day.

use std::time::Duration;

use super::Schedule;

const DURATION: &str = "write a length of time such as \"90s\", \"15m\", \"26h\" or \"7d\" (m: minutes)";
/// Longer is never meant.
const DURATION_SECONDS_MAX: u64 = 100 * 366 * 86400;

/// Reads `90s`, `15m`, `1h30m`, `26h`, `7d`, `2w`; `m` means minutes. Never zero.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut seconds: u64 = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (number, behind) = cut(rest, |c| c.is_ascii_digit());
        let (unit, behind) = cut(behind.trim_start(), |c| c.is_ascii_alphabetic());
        let number: u64 = number.parse().map_err(|_| DURATION.to_owned())?;
        let length = match unit.to_ascii_lowercase().as_str() {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86400,
            "w" | "week" | "weeks" => 7 * 86400,
            "mo" | "month" | "months" | "y" | "year" | "years" => return Err("write months and years as days, as in \"90d\"".into()),
            "" => return Err(format!("{number} of what? {DURATION}")),
            _ => return Err(DURATION.into()),
        };
        seconds = number.checked_mul(length).and_then(|part| part.checked_add(seconds)).ok_or(DURATION)?;
        rest = behind.trim_start();
    }
    match seconds {
        0 => Err(DURATION.into()),
        1..=DURATION_SECONDS_MAX => Ok(Duration::from_secs(seconds)),
        _ => Err("that is more than a hundred years".into()),
    }
}

/// As it is written: `26h`, `1h30m`, `7d`.
pub fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    // Hours up to two days are hours: 26h says more than 1d2h.
    let days = if seconds.is_multiple_of(86400) || seconds >= 2 * 86400 { seconds / 86400 } else { 0 };
    let rest = seconds - days * 86400;
    let parts = [(days, 'd'), (rest / 3600, 'h'), (rest / 60 % 60, 'm'), (rest % 60, 's')];
    let text: String = parts.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}")).collect();
    if text.is_empty() { "0s".into() } else { text }
}

/// Reads a size: `512`, `10K`, `1.5G`, `10 GiB`; all units are powers of 1024.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let power = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    let bytes = number * 1024f64.powi(power);
    (bytes.is_finite() && bytes >= 1.0 && bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// Reads `50%` as 0.5. A hundred means that anything will do.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let wrong = || "write a share such as \"50%\", from 1% to 100%".to_owned();
    let number: f64 = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim_end().parse().map_err(|_| wrong())?;
    if (1.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(wrong()) }
}

/// Reads `1000..`, `..5`, `10..20` (both ends belong to it).
pub fn parse_range(text: &str) -> Result<(Option<u64>, Option<u64>), String> {
    let wrong = || "write least and greatest, as in \"1000..\", \"..5\" or \"10..20\"".to_owned();
    let (least, greatest) = text.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| wrong()),
    };
    match (number(least)?, number(greatest)?) {
        (None, None) => Err(wrong()),
        (Some(least), Some(greatest)) if least > greatest => Err("the least is more than the greatest".into()),
        range => Ok(range),
    }
}

const SCHEDULE: &str = "write \"daily 02:15\", \"every 6h\" or \"weekly sunday 03:00\"";
const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

/// Reads `daily 02:15`, `every 6h`, `hourly`, `weekly sunday 03:00`.
pub fn parse_schedule(text: &str) -> Result<Schedule, String> {
    let text = text.to_ascii_lowercase();
    let words: Vec<&str> = text.split_whitespace().collect();
    match words[..] {
        ["daily", time] | [time] if time.contains(':') => {
            let (hour, minute) = parse_clock(time)?;
            Ok(Schedule::Daily { hour, minute })
        }
        ["hourly"] => Ok(Schedule::Hours(1)),
        ["every", hours] => {
            let hours = hours.strip_suffix('h').and_then(|hours| hours.parse::<u8>().ok()).ok_or(SCHEDULE)?;
            match hours {
                1 | 2 | 3 | 4 | 6 | 8 | 12 => Ok(Schedule::Hours(hours)),
                24 => Err("write \"daily 02:15\"".into()),
                _ => Err("write 1, 2, 3, 4, 6, 8 or 12 hours, so that every day is like the other".into()),
            }
        }
        ["weekly", day, time] => {
            let found = DAYS.iter().position(|name| day.len() >= 3 && name.starts_with(day)).ok_or(SCHEDULE)?;
            let (hour, minute) = parse_clock(time)?;
            Ok(Schedule::Weekly { day: found as u8, hour, minute })
        }
        _ => Err(SCHEDULE.into()),
    }
}

fn parse_clock(text: &str) -> Result<(u8, u8), String> {
    let wrong = || format!("{SCHEDULE}; times are from 00:00 to 23:59");
    let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
    let two_digits = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() <= 2 && text.bytes().all(|byte| byte.is_ascii_digit()));
    match (two_digits(hour), two_digits(minute).filter(|_| minute.len() == 2)) {
        (Some(hour), Some(minute)) if hour < 24 && minute < 60 => Ok((hour, minute)),
        _ => Err(wrong()),
    }
}

/// As it is written.
pub fn show_schedule(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Daily { hour, minute } => format!("daily {hour:02}:{minute:02}"),
        Schedule::Hours(1) => "hourly".into(),
        Schedule::Hours(hours) => format!("every {hours}h"),
        Schedule::Weekly { day, hour, minute } => format!("weekly {} {hour:02}:{minute:02}", DAYS[usize::from(*day % 7)]),
    }
}

/// Refuses arguments in which a password stands in clear: everybody on this machine could read it while the program runs.
pub(super) fn refuse_secrets(line: &[String]) -> Result<(), String> {
    const ADVICE: &str = "hand it over in a variable, as in secrets = { PGPASSWORD = { file = \"/etc/snap/pg.password\" } }";
    let words = line.iter().flat_map(|argument| argument.split_whitespace());
    let mut is_mysql = false;
    for word in words {
        let word = word.trim_matches(['"', '\'']);
        let program = word.rsplit('/').next().unwrap_or_default();
        is_mysql |= program.starts_with("mysql") || program.starts_with("mariadb");
        if is_mysql && word.starts_with("-p") && word.len() > 2 && !word[2..].contains('$') {
            return Err(format!("there is a password in clear in the command, behind -p; {ADVICE}"));
        }
        let name = word.split_once('=').map(|(name, value)| (name.trim_start_matches('-'), value));
        if let Some((name, value)) = name {
            let is_given = !value.is_empty() && !value.starts_with('$') && !value.starts_with("\"$");
            if is_given && is_secret_name(name) {
                return Err(format!("there is a password in clear in the command, behind {name}=; {ADVICE}"));
            }
        }
        if has_password(word) {
            return Err(format!("there is an address with a password in the command; {ADVICE}"));
        }
    }
    Ok(())
}

/// Whether a variable or option of this name holds a secret, and not the place of one.
pub(super) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let ends = ["password", "passwd", "pwd", "passphrase", "token", "secret", "secret_key", "api_key", "cli_auth", "access_key"];
    ends.iter().any(|end| name == *end || name.ends_with(&format!("_{end}")) || name.ends_with("password")) || name == "pass"
}

/// Whether a text is an address like `scheme://user:password@host`.
pub(super) fn has_password(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return false };
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let Some((user, _)) = host.rsplit_once('@') else { return false };
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty() && !password.starts_with('$'))
}

/// What fits at the beginning, and the rest.
fn cut(text: &str, fits: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !fits(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, seconds, shown) in [
            ("90s", 90, "1m30s"),
            ("15m", 900, "15m"),
            ("1h30m", 5400, "1h30m"),
            ("26h", 26 * 3600, "26h"),
            ("24 hours", 86400, "1d"),
            ("7d", 7 * 86400, "7d"),
            ("2w 1d", 15 * 86400, "15d"),
            ("49h", 49 * 3600, "2d1h"),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
            assert_eq!(show_duration(Duration::from_secs(seconds)), shown);
            assert_eq!(parse_duration(shown), Ok(Duration::from_secs(seconds)), "{shown}");
        }
        for wrong in ["", "0h", "7", "7x", "-1d", "1.5h", "3 months", "99999999999999999999d", "18446744073709551615w", "40000d", "h", "é"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_and_ranges() {
        assert_eq!(parse_share("50%"), Ok(0.5));
        assert_eq!(parse_share(" 12.5 %"), Ok(0.125));
        for wrong in ["", "50", "%", "0%", "101%", "-5%", "nan%", "inf%"] {
            assert!(parse_share(wrong).is_err(), "{wrong}");
        }
        for (text, range) in
            [("1000..", (Some(1000), None)), ("..5", (None, Some(5))), ("10..20", (Some(10), Some(20))), ("0 .. 0", (Some(0), Some(0)))]
        {
            assert_eq!(parse_range(text), Ok(range), "{text}");
        }
        for wrong in ["", "..", "5", "20..10", "a..b", "-1..", "1...3"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn schedules() {
        for (text, shown) in [
            ("daily 02:15", "daily 02:15"),
            ("2:15", "daily 02:15"),
            ("every 6h", "every 6h"),
            ("hourly", "hourly"),
            ("every 1h", "hourly"),
            ("Weekly Sun 03:00", "weekly sunday 03:00"),
            ("weekly monday 23:59", "weekly monday 23:59"),
        ] {
            assert_eq!(parse_schedule(text).map(|schedule| show_schedule(&schedule)), Ok(shown.to_owned()), "{text}");
        }
        for wrong in [
            "",
            "daily",
            "daily 24:00",
            "daily 02:60",
            "daily 2:5",
            "every 5h",
            "every 24h",
            "every h",
            "weekly s 03:00",
            "weekly 03:00",
            "+2:15",
            "1:+5",
        ] {
            assert!(parse_schedule(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn passwords_in_commands_are_refused() {
        let refused = |line: &[&str]| refuse_secrets(&line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()).is_err();
        for line in [
            &["mysqldump", "--password=geheim"][..],
            &["bash", "-c", "PGPASSWORD=x pg_dump a | cat"],
            &["pg_dump", "postgresql://u:geheim@db/orders"],
            &["curl", "--api-key=1"],
            &["env", "MYSQL_PWD='x'"],
            &["/usr/bin/mysqldump", "-pgeheim", "orders"],
            &["bash", "-c", "mariadb-dump -u x -pgeheim orders"],
        ] {
            assert!(refused(line), "{line:?}");
        }
        for line in [
            &["mysqldump", "--password-file=/etc/x", "--password=$X"][..],
            &["pg_dump", "postgresql://u@db/orders", "--no-password"],
            &["bash", "-c", "PGPASSWORD=$(cat /etc/x) pg_dump postgresql://u:$P@db/orders"],
            &["pg_dump", "--dbname=orders", "a=b", "-p5432"],
            &["mysqldump", "-p", "-p$X"],
        ] {
            assert!(!refused(line), "{line:?}");
        }
    }
}
