//! Which snapshots of a group a policy keeps, and why: a pure function of times, tags, rules, clock and time zone.
//!
//! Rules mean what they mean in restic: each picks on its own, and what any of them picks is kept. `daily 7` picks the newest snapshot
//! of each of the last seven days that have one, and the very oldest snapshot while it has picks left. So more rules never keep less,
//! and applying a policy to what it left removes nothing more.
//!
//! Whatever the rules say, kept are the newest complete snapshot of a group, and what seems to be from the future, which also does not
//! count: else one machine with a wrong clock would push out the snapshots of all.

mod age;
mod clock;
mod group;

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

pub use age::Age;
pub use clock::{Doubt, doubt, horizon};
pub use group::{GroupBy, GroupKey};

use crate::id::SnapshotId;

/// What the rules look at.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    pub id: SnapshotId,
    pub time: Timestamp,
    pub tags: &'a [String],
    /// All its sources could be read.
    pub complete: bool,
}

/// The stretches of time of which a rule picks one snapshot each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// Every snapshot is a stretch of its own.
    Each,
    Hour,
    Day,
    /// ISO 8601: Monday to Sunday.
    Week,
    Month,
    Year,
}

impl Period {
    pub const ALL: [Self; 6] = [Self::Each, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// As in `--keep-daily` and `daily snapshot`.
    pub fn adverb(self) -> &'static str {
        match self {
            Self::Each => "last",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Week => "weekly",
            Self::Month => "monthly",
            Self::Year => "yearly",
        }
    }

    /// Two moments have the same key if they are in the same stretch; `place` is the snapshot's in its group.
    fn key(self, time: &Zoned, place: usize) -> [i64; 4] {
        let week = time.date().iso_week_date();
        match self {
            Self::Each => [place as i64, 0, 0, 0],
            // An hour that the clocks go through twice is two hours.
            Self::Hour => [time.year().into(), time.day_of_year().into(), time.hour().into(), time.offset().seconds().into()],
            Self::Day => [time.year().into(), time.day_of_year().into(), 0, 0],
            Self::Week => [week.year().into(), week.week().into(), 0, 0],
            Self::Month => [time.year().into(), time.month().into(), 0, 0],
            Self::Year => [time.year().into(), 0, 0, 0],
        }
    }
}

/// How many periods a rule picks from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    Number(u32),
    Unlimited,
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" | "-1" => Ok(Self::Unlimited),
            number => number.parse().map(Self::Number).map_err(|_| "write a number, or unlimited".into()),
        }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The newest of each of the last so many periods.
    Count(Period, Count),
    /// The newest of each period that is less than so long before the newest snapshot.
    Within(Period, Age),
    /// All that have all of these tags.
    Tags(Vec<String>),
}

impl Rule {
    /// Whether it never picks anything.
    fn is_void(&self) -> bool {
        match self {
            Self::Count(_, count) => *count == Count::Number(0),
            Self::Within(_, age) => age.is_zero(),
            Self::Tags(tags) => tags.is_empty(),
        }
    }
}

/// Rules, and what they never remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    /// What is younger is kept.
    pub min_age: Age,
}

impl Policy {
    /// Rules that pick nothing are left out.
    pub fn new(rules: impl IntoIterator<Item = Rule>, min_age: Age) -> Self {
        Self { rules: rules.into_iter().filter(|rule| !rule.is_void()).collect(), min_age }
    }

    /// Without rules nothing is picked: whoever asks for that has made a mistake.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// As it is written on the command line.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, rule) in self.rules.iter().enumerate() {
            let space = if i > 0 { " " } else { "" };
            match rule {
                Rule::Count(period, count) => write!(f, "{space}keep-{} {count}", period.adverb())?,
                Rule::Within(Period::Each, age) => write!(f, "{space}keep-within {age}")?,
                Rule::Within(period, age) => write!(f, "{space}keep-within-{} {age}", period.adverb())?,
                Rule::Tags(tags) => write!(f, "{space}keep-tag {}", tags.join(","))?,
            }
        }
        Ok(())
    }
}

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Counted {
        period: Period,
        /// Not the newest of its period, but the oldest of all.
        oldest: bool,
    },
    Within {
        period: Period,
        age: Age,
        oldest: bool,
    },
    Tagged(Vec<String>),
    Younger(Age),
    Future,
    /// The newest snapshot of the group that lacks nothing.
    LastComplete,
    /// The newest snapshot of a group in which all lack something.
    Last,
    /// There are no rules.
    NoRule,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let oldest = |oldest: &bool| if *oldest { "oldest " } else { "" };
        match self {
            Self::Counted { period, oldest: first } => write!(f, "{}{} snapshot", oldest(first), period.adverb()),
            Self::Within { period: Period::Each, age, .. } => write!(f, "within {age}"),
            Self::Within { period, age, oldest: first } => write!(f, "{}{} within {age}", oldest(first), period.adverb()),
            Self::Tagged(tags) => write!(f, "has tags {}", tags.join(",")),
            Self::Younger(age) => write!(f, "younger than {age}"),
            Self::Future => f.write_str("in the future"),
            Self::LastComplete => f.write_str("last complete snapshot"),
            Self::Last => f.write_str("last snapshot of its group"),
            Self::NoRule => f.write_str("no rule is given"),
        }
    }
}

/// When and where a policy is applied.
#[derive(Clone, Debug)]
pub struct Moment {
    pub now: Timestamp,
    /// Days, weeks and the like begin as they do here.
    pub zone: TimeZone,
}

/// For each snapshot of one group, in the order given, why it is kept; those without a reason are to be removed.
pub fn judge(group: &[Candidate], policy: &Policy, moment: &Moment) -> Vec<Vec<Reason>> {
    let mut reasons = vec![Vec::new(); group.len()];
    if policy.is_empty() {
        return vec![vec![Reason::NoRule]; group.len()];
    }
    let horizon = horizon(moment.now);
    let (mut counted, future): (Vec<usize>, Vec<usize>) = (0..group.len()).partition(|&i| group[i].time <= horizon);
    future.into_iter().for_each(|i| reasons[i].push(Reason::Future));
    counted.sort_by_key(|&i| Reverse((group[i].time, group[i].id)));
    let times: Vec<Zoned> = counted.iter().map(|&i| group[i].time.to_zoned(moment.zone.clone())).collect();
    for rule in &policy.rules {
        let picked: Vec<(usize, Reason)> = match rule {
            Rule::Count(period, count) => pick_counted(&times, *period, *count),
            Rule::Within(period, age) => pick_within(&times, *period, *age),
            Rule::Tags(tags) => {
                let fits = |place: &usize| tags.iter().all(|tag| group[counted[*place]].tags.contains(tag));
                (0..counted.len()).filter(fits).map(|place| (place, Reason::Tagged(tags.clone()))).collect()
            }
        };
        picked.into_iter().for_each(|(place, reason)| reasons[counted[place]].push(reason));
    }
    if !policy.min_age.is_zero() {
        let since = policy.min_age.before(moment.now, &moment.zone);
        let young = counted.iter().filter(|&&i| group[i].time > since);
        young.for_each(|&i| reasons[i].push(Reason::Younger(policy.min_age)));
    }
    let last = match counted.iter().find(|&&i| group[i].complete) {
        Some(&i) => Some((i, Reason::LastComplete)),
        None => counted.first().map(|&i| (i, Reason::Last)),
    };
    if let Some((i, reason)) = last.filter(|(i, _)| reasons[*i].is_empty()) {
        reasons[i].push(reason);
    }
    reasons
}

/// Places, newest first, of what a rule of numbers picks.
fn pick_counted(times: &[Zoned], period: Period, count: Count) -> Vec<(usize, Reason)> {
    let picks = match count {
        Count::Unlimited => usize::MAX,
        Count::Number(number) => number as usize,
    };
    newest_of_each(times, period, times.len()).take(picks).map(|(place, oldest)| (place, Reason::Counted { period, oldest })).collect()
}

/// Places of what a rule of time picks.
fn pick_within(times: &[Zoned], period: Period, age: Age) -> Vec<(usize, Reason)> {
    let Some(newest) = times.first() else { return Vec::new() };
    let since = age.before(newest.timestamp(), newest.time_zone());
    let within = times.iter().take_while(|time| time.timestamp() > since).count();
    newest_of_each(times, period, within).map(|(place, oldest)| (place, Reason::Within { period, age, oldest })).collect()
}

/// Among the first `end` places, the first of each period; and the oldest snapshot of all, said to be that if it is not the first.
fn newest_of_each(times: &[Zoned], period: Period, end: usize) -> impl Iterator<Item = (usize, bool)> + '_ {
    let mut before = None;
    (0..end).filter_map(move |place| {
        let key = period.key(&times[place], place);
        let is_first = before.replace(key) != Some(key);
        (is_first || place + 1 == times.len()).then_some((place, !is_first))
    })
}

#[cfg(test)]
mod tests;
