//! The ways to somebody. Whatever goes wrong is said without addresses: those are secrets, and so are parts of them.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::mail;
use super::means::{io, left};
use super::message::{Event, Message};
use crate::config::{FetchSecret, Mail, SecretFrom, Webhook, WebhookForm};
use crate::error::Error;
use crate::source::{CommandLine, Patience, Setting, run_command};

/// What a command that takes too long has to end itself, before the whole time is over.
const TIME_TO_END: Duration = Duration::from_millis(2500);

/// A way to somebody.
pub enum Channel {
    Webhook { number: usize, webhook: Webhook },
    Ping { job: String, url: SecretFrom },
    Mail(Mail),
    Command(Vec<String>),
}

impl Channel {
    /// Which of the configured.
    pub fn name(&self) -> String {
        match self {
            Self::Webhook { number, webhook } => match webhook.form {
                WebhookForm::Json => format!("webhook {number}"),
                WebhookForm::Slack => format!("webhook {number} (Slack)"),
                WebhookForm::Discord => format!("webhook {number} (Discord)"),
            },
            Self::Ping { job, .. } if job == "*" => "the ping for all jobs".into(),
            Self::Ping { job, .. } => format!("the ping for {job}"),
            Self::Mail(_) => "mail".into(),
            Self::Command(_) => "the notify command".into(),
        }
    }

    /// Sends a message, and gives up at the deadline at the latest. The error is a sentence without addresses.
    pub fn send(&self, message: &Message, fetch: &FetchSecret, deadline: Instant) -> Result<(), String> {
        match self {
            Self::Webhook { webhook, .. } => {
                let body = message.in_form(webhook.form).to_string();
                post(&address(&webhook.url, fetch)?, "application/json", body.as_bytes(), deadline)
            }
            Self::Ping { url, .. } => {
                let behind = match message.event {
                    Event::Started => "/start",
                    Event::Failed | Event::Missed => "/fail",
                    // Only a note: it does not say how the job went.
                    Event::Test | Event::Unwatched => "/log",
                    Event::Succeeded | Event::Recovered => "",
                };
                post(&beside(&address(url, fetch)?, behind), "text/plain; charset=utf-8", message.whole().as_bytes(), deadline)
            }
            Self::Mail(mail) => mail::send(mail, message, fetch, deadline),
            Self::Command(line) => run(line, message, deadline),
        }
    }
}

fn address(from: &SecretFrom, fetch: &FetchSecret) -> Result<String, String> {
    // An error names the place of a secret and never the secret.
    let secret = fetch(from).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&secret).map_err(|_| "its address is not text".to_owned())?.trim();
    match text.starts_with("https://") || text.starts_with("http://") {
        true => Ok(text.to_owned()),
        false => Err("its address does not begin with https://".into()),
    }
}

/// The address with something behind its path.
fn beside(url: &str, behind: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (path, rest) = url.split_at(end);
    format!("{}{behind}{rest}", path.trim_end_matches('/'))
}

fn post(url: &str, content_type: &str, body: &[u8], deadline: Instant) -> Result<(), String> {
    // Whom to trust is this machine's affair, as it is for its other programs.
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    let config = ureq::Agent::config_builder().timeout_global(Some(left(deadline))).max_redirects(0).http_status_as_error(false);
    let config = config.tls_config(tls).user_agent(concat!("snap/", env!("CARGO_PKG_VERSION"))).build();
    let agent = ureq::Agent::new_with_config(config);
    let answer = agent.post(url).content_type(content_type).send(body).map_err(|error| why(&error))?;
    match answer.status().as_u16() {
        200..300 => Ok(()),
        status @ 300..400 => Err(format!("it answered {status} (elsewhere); write the address it leads to")),
        status => Err(format!("it answered {status}")),
    }
}

/// What went wrong, in words of our own: those of others may hold the address.
fn why(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "it did not answer in time".into(),
        ureq::Error::HostNotFound => "its host is not known".into(),
        ureq::Error::ConnectionFailed => "it cannot be reached".into(),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => "its address is none".into(),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => "TLS failed; is its certificate valid here?".into(),
        ureq::Error::Io(error) => io(error),
        _ => "the call failed".into(),
    }
}

/// Runs a program with the message on its standard input. It gets none of our secrets, and is ended if it takes too long.
fn run(words: &[String], message: &Message, deadline: Instant) -> Result<(), String> {
    let (program, args) = words.split_first().ok_or("it is empty")?;
    let line = CommandLine { program: program.into(), args: args.iter().map(Into::into).collect() };
    let end = deadline.checked_sub(TIME_TO_END).unwrap_or(deadline);
    let patience = Patience { until: Some((end, end.saturating_duration_since(Instant::now()))), stall: None };
    let setting = Setting { input: Some(message.to_json().to_string().into_bytes()), patience, ..Setting::default() };
    // What it says may hold an address.
    run_command(&line, setting, Box::new(|_| {}), &AtomicBool::new(false)).map_err(|error| match error {
        Error::Command { outcome, .. } if outcome.starts_with("had not ended") => "it took too long, and was stopped".into(),
        Error::Command { outcome, .. } => format!("it {outcome}"),
        _ => "it could not be run".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pings_keep_what_is_behind_the_path() {
        for (url, start) in [
            ("https://hc.example/ping/1234", "https://hc.example/ping/1234/start"),
            ("https://hc.example/ping/1234/", "https://hc.example/ping/1234/start"),
            ("https://hc.example/ping/1234?create=1", "https://hc.example/ping/1234/start?create=1"),
        ] {
            assert_eq!(beside(url, "/start"), start);
        }
    }
}
