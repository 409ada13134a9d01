//! Mail over SMTP: TLS from the start, STARTTLS or nothing at all, and never less than what is configured.

use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Instant;

use lettre::message::{Mailbox, header};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport};

use super::means::{io, left};
use super::message::Message;
use crate::config::{FetchSecret, Mail, MailSecurity};
use crate::error::show_bytes;

pub fn send(mail: &Mail, message: &Message, fetch: &FetchSecret, deadline: Instant) -> Result<(), String> {
    let letter = compose(mail, message)?;
    let builder = match mail.security {
        MailSecurity::Tls => SmtpTransport::relay(&mail.server),
        // It ends where the server does not offer it.
        MailSecurity::StartTls => SmtpTransport::starttls_relay(&mail.server),
        MailSecurity::None => Ok(SmtpTransport::builder_dangerous(&mail.server)),
    };
    let mut builder = builder.map_err(|_| "TLS could not be set up for this server".to_owned())?;
    if let Some(port) = mail.port {
        builder = builder.port(port);
    }
    if let (Some(user), Some(password)) = (&mail.user, &mail.password) {
        let password = fetch(password).map_err(|error| error.to_string())?;
        let password = std::str::from_utf8(&password).map_err(|_| "the password is not text".to_owned())?;
        builder = builder.credentials(Credentials::new(user.clone(), password.to_owned()));
    }
    let builder = builder.hello_name(ClientId::Domain(domain(&message.host).into())).timeout(Some(left(deadline)));
    builder.build().send(&letter).map(drop).map_err(|error| why(&error))
}

fn compose(mail: &Mail, message: &Message) -> Result<lettre::Message, String> {
    let mailbox = |text: &String| text.parse::<Mailbox>().map_err(|_| format!("{} is no address", show_bytes(text.as_bytes())));
    let mut body = message.whole();
    let _ = write!(body, "\n\n-- \nsnap on {}, {:.0}\n", show_bytes(message.host.as_bytes()), message.time);
    let id = format!("<snap.{}.{}@{}>", message.event.name(), message.time.as_nanosecond(), domain(&message.host));
    let mut builder =
        lettre::Message::builder().from(mailbox(&mail.from)?).subject(format!("[snap] {}", message.title)).message_id(Some(id));
    for to in &mail.to {
        builder = builder.to(mailbox(to)?);
    }
    builder.header(header::ContentType::TEXT_PLAIN).body(body).map_err(|_| "the mail could not be put together".into())
}

/// The name of this host as servers take it.
fn domain(host: &str) -> &str {
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if is_name { host } else { "localhost" }
}

/// What went wrong, in words of our own.
fn why(error: &lettre::transport::smtp::Error) -> String {
    if error.is_timeout() {
        return "the server did not answer in time".into();
    }
    if let Some(code) = error.status() {
        return format!("the server answered {code}");
    }
    let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    match source {
        Some(error) => io(error),
        None if error.is_tls() => "TLS failed; is the server's certificate valid here?".into(),
        None if error.is_client() => "the server does not offer what is configured: STARTTLS, or a way to log in".into(),
        None => "the server could not be understood".into(),
    }
}
