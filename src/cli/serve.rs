//! `snap serve`.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::json;
use zeroize::Zeroizing;

use super::context::Context;
use super::exit::{self, Outcome};
use super::{expect, fetch, output, settings, unlock};
use crate::config::{self, SecretFrom, Serve};
use crate::error::{Error, Result};
use crate::limits::SERVE_TOKEN_BYTES_MIN;
use crate::ops::status::Expectations;
use crate::serve::{Options, serve};

/// Show how all jobs stand as pages for a browser, and answer monitors
///
/// Read-only, on one port of this machine (127.0.0.1:8077) until Ctrl-C or SIGTERM: / shows what snap status says, with the nights, sizes,
/// runs and drills of each job and the files of each snapshot; /health and /health/JOB answer 200 or 503 with what snap status --health
/// prints; /metrics is what snap status --prometheus prints. To listen to other machines, it needs a token, which browsers give once
/// as /?token=TOKEN and programs as the header Authorization: Bearer TOKEN. It speaks no TLS: that is for a proxy in front of it.
#[derive(clap::Args)]
#[command(after_long_help = exit::help(EXAMPLES, exit::OPENING))]
pub struct Args {
    /// Address and port to listen on, 127.0.0.1:8077 if nothing is said; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// File that holds the token that is asked of everybody
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// How old the newest good snapshot of a stream may be that no configuration names: 26h, 8d
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    max_age: Option<Duration>,
    /// Also streams in the repository that are no job of the configuration
    #[arg(short, long)]
    all: bool,
}

const EXAMPLES: &str = "
  snap serve
  snap serve --listen 192.0.2.7:8077 --token-file /etc/snap/serve.token
  curl -f http://127.0.0.1:8077/health/orders";

/// Where it listens if nothing is said.
const LISTEN: &str = "127.0.0.1:8077";

impl Args {
    pub fn run(self, context: &Context) -> Result<Outcome> {
        let expected = Expected::new(context, self.max_age, self.all)?;
        let settings = expect::configuration(context)?.map(|config| config.serve.clone()).unwrap_or_default();
        let token = self.token(&settings, context)?;
        let text = self.listen.or(settings.listen).unwrap_or_else(|| LISTEN.into());
        let address = address(&text)?;
        if !address.ip().is_loopback() && token.is_none() {
            return Err(Error::Usage(format!(
                "Whoever reaches {text} could look in; give a token: --token-file FILE, or token = {{ file = \"...\" }} in [serve]"
            )));
        }
        let listener = TcpListener::bind(address).map_err(|error| Error::file("listen on", &text, error))?;
        let bound = listener.local_addr().map_err(|error| Error::file("listen on", &text, error))?;
        let repository = unlock::open(context)?;
        if context.options.json {
            output::print_json(&json!({"message_type": "listening", "address": bound.to_string(), "url": format!("http://{bound}/")}))?;
        } else if !context.options.quiet {
            output::print(&format!("listening on http://{bound}/"))?;
        }
        serve(
            repository,
            &listener,
            Options { expected: Box::new(move || expected.now()), token, zone: TimeZone::system() },
            context.signals.interrupted(),
        )?;
        Ok(Outcome::Done)
    }

    fn token(&self, settings: &Serve, context: &Context) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let from = self.token_file.clone().map(SecretFrom::File).or_else(|| settings.token.clone());
        let Some(from) = from else { return Ok(None) };
        let token = fetch::fetch(&from, context)?;
        match token.len() < SERVE_TOKEN_BYTES_MIN {
            true => Err(Error::Usage(format!(
                "The token from {} can be guessed: it needs {SERVE_TOKEN_BYTES_MIN} characters or more; openssl rand -hex 16 makes one",
                fetch::describe(&from)
            ))),
            false => Ok(Some(token)),
        }
    }
}

/// What is expected, read anew each time somebody wants to know. While that fails, what was expected before stays.
struct Expected {
    context: Context,
    max_age: Option<Duration>,
    all: bool,
    /// The repository that the configuration named at the start, if there was one.
    named: Option<Option<PathBuf>>,
    /// And what is wrong with it now.
    last: Mutex<(Expectations, Option<String>)>,
}

impl Expected {
    fn new(context: &Context, max_age: Option<Duration>, all: bool) -> Result<Self> {
        let expectations = expect::expectations(context, max_age, all)?;
        let named = expect::configuration(context)?.map(|config| config.repository.path.clone());
        Ok(Self { context: context.afresh(), max_age, all, named, last: Mutex::new((expectations, None)) })
    }

    fn now(&self) -> (Expectations, Option<String>) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.read() {
            Ok(expectations) => *last = (expectations, None),
            Err(error) => {
                let why = format!("the configuration cannot be used as it is now, what it said before counts: {}", exit::message(&error));
                if last.1.as_ref() != Some(&why) {
                    output::complain(&format!("warning: {why}"));
                }
                last.1 = Some(why);
            }
        }
        last.clone()
    }

    fn read(&self) -> Result<Expectations> {
        let context = self.context.afresh();
        if let Some(named) = &self.named {
            // It must be right as a whole: to a command that has just begun, a file that cannot be read would be no reason to stop.
            let config = settings::require(&context)?;
            if config.repository.path != *named {
                return Err(Error::Usage("it names another repository; start snap serve again".into()));
            }
        }
        expect::expectations(&context, self.max_age, self.all)
    }
}

/// An address in numbers, or this machine by name.
fn address(text: &str) -> Result<SocketAddr> {
    let wrong = || Error::Usage(format!("{text} is no address and port; write 127.0.0.1:8077 or [::1]:8077"));
    match text.starts_with("localhost:") {
        true => text.to_socket_addrs().ok().and_then(|mut found| found.next()).ok_or_else(wrong),
        false => text.parse().map_err(|_| wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numbers_or_this_machine() {
        for text in ["127.0.0.1:0", "[::1]:8077", "0.0.0.0:80", "localhost:9"] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["", "8077", ":8077", "127.0.0.1", "backup.example.org:80", "localhost:", "localhost:70000"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
