//! Telling people: webhooks, mail, pings and a command, when a job fails, is well again, or misses what was expected of it.
//!
//! Nobody is told the same trouble of the same job again before `repeat_after`, and of its end once; what was told is kept in this
//! host's state. What cannot be reached costs seconds and a warning, never a backup. Addresses are secrets: no error, warning or message
//! holds one.

mod channels;
mod mail;
mod means;
mod message;
mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use jiff::Timestamp;

pub use message::{Event, Message};

use crate::config::{FetchSecret, Notify, SecretFrom};
use crate::format::report::{Did, Outcome, Report};
use channels::Channel;
use told::{Key, Note, Told, Trouble};

/// All that is told at a time.
pub const WAIT: Duration = Duration::from_secs(10);
/// The ping when a job begins: the backup is waiting.
pub const WAIT_AT_START: Duration = Duration::from_secs(3);
/// When the same trouble is told again, if nothing is configured.
pub const REPEAT_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Whom to tell, and what was told.
pub struct Notifier {
    config: Notify,
    fetch: FetchSecret,
    told: Told,
}

/// An objective that is missed, of a job or, without one, of the repository.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    #[serde(rename = "hostname")]
    pub host: String,
    pub job: Option<String>,
    /// Which objective, in one word.
    pub objective: String,
    pub message: String,
}

/// How an attempt to tell somebody went.
#[derive(Debug)]
pub struct Attempt {
    /// Which of the configured, never its address.
    pub whom: String,
    /// Why it failed.
    pub error: Option<String>,
}

/// What is to be told to whom.
type Errand = (Channel, Arc<Message>);

impl Notifier {
    /// `state` is this host's folder of what it knows; without one, trouble is told every time. `file` is the configuration's.
    pub fn new(config: Notify, fetch: FetchSecret, state: Option<PathBuf>, file: &Path) -> Self {
        Self { config, fetch, told: Told::new(state, file) }
    }

    /// A run begins: pings are told. Returns warnings.
    pub fn begun(&self, report: &Report) -> Vec<String> {
        let Did::Run(run) = &report.did else { return Vec::new() };
        warnings(self.send(self.pings(&run.job, &Message::of_report(Event::Started, report)), WAIT_AT_START))
    }

    /// A run or drill is over. Returns warnings.
    pub fn ended(&self, report: &Report, now: Timestamp) -> Vec<String> {
        let (kind, job) = match &report.did {
            Did::Run(run) => ("run", run.job.as_str()),
            Did::Drill(drill) => ("drill", drill.job.as_str()),
            Did::Check(_) | Did::Prune(_) => return Vec::new(),
        };
        let is_good = report.outcome == Outcome::Good;
        let mut pings = Vec::new();
        if kind == "run" {
            // Their receivers count every run, and make their own sense of it.
            let event = if is_good { Event::Succeeded } else { Event::Failed };
            pings = self.pings(job, &Message::of_report(event, report));
        }
        let key = Key::new(kind, &report.host, job);
        // What fails in another way is other trouble.
        let way = report.exit_code.to_string();
        let (message, notes) = match (is_good, self.told.find(&key)) {
            (true, Some(trouble)) => {
                let message = Message { since: Some(trouble.since), ..Message::of_report(Event::Recovered, report) };
                (message, vec![Note::Over(key)])
            }
            (true, None) if self.config.on_success => (Message::of_report(Event::Succeeded, report), Vec::new()),
            (false, _) if !self.told.is_told(&key, &way, now, self.repeat_after()) => {
                let message = Message::of_report(Event::Failed, report);
                let note = Note::Trouble { key, way, message: message.title.clone() };
                (message, vec![note])
            }
            _ => return warnings(self.send(pings, WAIT)),
        };
        self.tell(pings, message, notes, now)
    }

    /// What is missed now, of the repository and these jobs (host and name), which are all that are watched. What was missed of them and is
    /// no more has recovered; of others nobody knows, and that is told, once. Returns warnings.
    pub fn missed(&self, missing: &[Missing], watched: &[(&str, &str)], now: Timestamp) -> Vec<String> {
        let is_missed = |was: &Missing| {
            // The repository is the same, whatever this host is called.
            let same = |one: &Missing| one.objective == was.objective && one.job == was.job && (one.job.is_none() || one.host == was.host);
            missing.iter().any(same)
        };
        let is_watched = |was: &Missing| was.job.as_deref().is_none_or(|job| watched.contains(&(was.host.as_str(), job)));
        let told = self.told.all(told::MISSED).into_iter();
        let over = told.filter(|(key, trouble)| !is_missed(&key.to_missing(trouble)));
        let (met, unwatched) = over.partition(|(key, trouble)| is_watched(&key.to_missing(trouble)));
        let mut found = self.still_missed(missing, now);
        found.extend(self.over(Event::Recovered, met, now));
        found.extend(self.over(Event::Unwatched, unwatched, now));
        found
    }

    /// This objective is met; if it was told as missed, that is over. Returns warnings.
    pub fn met(&self, objective: &str, now: Timestamp) -> Vec<String> {
        self.over(Event::Recovered, self.told.all(&format!("{}{objective}\n", told::MISSED)), now)
    }

    /// Tells that trouble is over, or that nobody looks at it any more.
    fn over(&self, event: Event, over: Vec<(Key, Trouble)>, now: Timestamp) -> Vec<String> {
        let Some(since) = over.iter().map(|(_, trouble)| trouble.since).min() else { return Vec::new() };
        let was: Vec<Missing> = over.iter().map(|(key, trouble)| key.to_missing(trouble)).collect();
        let message = Message { since: Some(since), ..Message::of_missing(event, &was, now) };
        self.tell(Vec::new(), message, over.into_iter().map(|(key, _)| Note::Over(key)).collect(), now)
    }

    /// What is missed now, where not everything could be looked at. Returns warnings.
    pub fn still_missed(&self, missing: &[Missing], now: Timestamp) -> Vec<String> {
        let is_fresh = |one: &&Missing| !self.told.is_told(&Key::of_missing(one), "", now, self.repeat_after());
        let fresh: Vec<Missing> = missing.iter().filter(is_fresh).cloned().collect();
        let note = |one: &Missing| Note::Trouble { key: Key::of_missing(one), way: String::new(), message: one.message.clone() };
        match fresh.is_empty() {
            true => Vec::new(),
            false => self.tell(Vec::new(), Message::of_missing(Event::Missed, &fresh, now), fresh.iter().map(note).collect(), now),
        }
    }

    /// Tries out everything that is configured.
    pub fn test(&self, host: &str, now: Timestamp) -> Vec<Attempt> {
        let message = Arc::new(Message::test(host, now));
        let mut channels = self.channels();
        channels.extend(self.config.pings.iter().map(|(job, url)| Channel::Ping { job: job.clone(), url: url.clone() }));
        self.send(channels.into_iter().map(|channel| (channel, message.clone())).collect(), WAIT)
    }

    /// Sends a message to everybody, beside the pings, and notes it if anybody was reached: who is configured later shall hear of trouble that
    /// is there already.
    fn tell(&self, pings: Vec<Errand>, message: Message, notes: Vec<Note>, now: Timestamp) -> Vec<String> {
        let message = Arc::new(message);
        let first = pings.len();
        let mut errands = pings;
        errands.extend(self.channels().into_iter().map(|channel| (channel, message.clone())));
        let sent = self.send(errands, WAIT);
        if sent[first..].iter().any(|attempt| attempt.error.is_none()) {
            self.told.note(notes, now);
        }
        warnings(sent)
    }

    fn repeat_after(&self) -> Duration {
        self.config.repeat_after.unwrap_or(REPEAT_AFTER)
    }

    fn pings(&self, job: &str, message: &Message) -> Vec<Errand> {
        let url = self.config.pings.get(job).or_else(|| self.config.pings.get("*"));
        let errand = |url: &SecretFrom| (Channel::Ping { job: job.into(), url: url.clone() }, Arc::new(message.clone()));
        url.map(errand).into_iter().collect()
    }

    fn channels(&self) -> Vec<Channel> {
        let webhooks = self.config.webhooks.iter().enumerate();
        let mut channels: Vec<Channel> =
            webhooks.map(|(number, webhook)| Channel::Webhook { number: number + 1, webhook: webhook.clone() }).collect();
        channels.extend(self.config.mail.clone().map(Channel::Mail));
        channels.extend(self.config.command.clone().map(Channel::Command));
        channels
    }

    /// Does all errands at the same time, and waits no longer than that for all of them.
    fn send(&self, errands: Vec<Errand>, wait: Duration) -> Vec<Attempt> {
        let deadline = Instant::now() + wait;
        let waiting: Vec<_> = errands
            .into_iter()
            .map(|(channel, message)| {
                let (whom, fetch) = (channel.name(), self.fetch.clone());
                let (done, outcome) = bounded(1);
                // Left behind if it hangs: the program ends without it.
                std::thread::spawn(move || done.send(channel.send(&message, &fetch, deadline).err()));
                (whom, outcome)
            })
            .collect();
        let late = || Some(format!("it did not answer within {} seconds", wait.as_secs()));
        let outcome = |(whom, outcome): (String, crossbeam_channel::Receiver<Option<String>>)| {
            let error = outcome.recv_deadline(deadline).unwrap_or_else(|_| late());
            Attempt { whom, error }
        };
        waiting.into_iter().map(outcome).collect()
    }
}

fn warnings(sent: Vec<Attempt>) -> Vec<String> {
    sent.into_iter().filter_map(|attempt| attempt.error.map(|error| format!("{} could not be told: {error}", attempt.whom))).collect()
}
