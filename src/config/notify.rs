//! `[notify]`: whom to tell.

use std::collections::BTreeMap;

use super::reader::{Table, quoted};
use super::secrets::{secret, secret_of};
use super::{Job, Mail, MailSecurity, Notify, Webhook, WebhookForm};

pub(super) fn notify(root: &Table, jobs: &BTreeMap<String, Job>) -> Option<Notify> {
    let table = root.table("notify", "notify")?;
    let webhooks = table.tables("webhook", "notify.webhook").iter().filter_map(webhook).collect();
    let mail = table.table("mail", "notify.mail").and_then(|table| mail(&table));
    let mut pings = BTreeMap::new();
    if let Some(entries) = table.table("pings", "notify.pings") {
        for (name, value) in entries.entries() {
            // A job that is wrong is no job yet.
            let is_job = jobs.contains_key(name) || root.is_there("jobs") && super::job::is_named(root, name);
            if name != "*" && !is_job {
                value.reader.complain(value.key_at, format!("there is no job {}; write the name of a job, or \"*\" for all", quoted(name)));
            }
            if let Some(secret) = secret_of(&value, &entries.below(name)) {
                pings.insert(name.to_owned(), secret);
            }
        }
    }
    let notify = Notify {
        webhooks,
        mail,
        pings,
        command: table.command("command"),
        on_success: table.flag("on_success").unwrap_or(false),
        repeat_after: table.duration("repeat_after"),
    };
    table.finish();
    Some(notify)
}

fn webhook(table: &Table) -> Option<Webhook> {
    let url = secret(table, "url");
    let forms = [("json", WebhookForm::Json), ("slack", WebhookForm::Slack), ("discord", WebhookForm::Discord)];
    let form = table.choice("form", &forms).unwrap_or_default();
    if !table.is_there("url") {
        table.complain("a webhook needs an address; write url = { file = \"/etc/snap/webhook.url\" }");
    }
    table.finish();
    Some(Webhook { url: url?, form })
}

fn mail(table: &Table) -> Option<Mail> {
    let securities = [("tls", MailSecurity::Tls), ("starttls", MailSecurity::StartTls), ("none", MailSecurity::None)];
    let server = table.get("server").and_then(|value| value.plain());
    let port = table.get("port").and_then(|value| value.port());
    let security = table.choice("security", &securities).unwrap_or_default();
    let user = table.text("user");
    let password = secret(table, "password");
    let address = |value: super::reader::Value| {
        let text = value.text()?;
        let fits = text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
        // Line ends would be headers of their own.
        if !fits || text.contains(['\n', '\t']) {
            value.complain("write an address such as \"snap@example.com\"");
            return None;
        }
        Some(text.to_owned())
    };
    let from = table.get("from").and_then(address);
    let to = table.get("to").map(|value| match value.is_list() {
        true => value.items().into_iter().filter_map(address).collect::<Vec<_>>(),
        false => address(value).into_iter().collect(),
    });
    for key in ["server", "from", "to"] {
        if !table.is_there(key) {
            table.complain(format!("mail needs {key}"));
        }
    }
    if to.as_ref().is_some_and(Vec::is_empty) && table.get("to").is_some_and(|value| value.is_list() && value.items().is_empty()) {
        table.complain("mail goes to nobody; write to = [\"you@example.com\"]");
    }
    if table.is_there("password") && !table.is_there("user") {
        table.complain("there is a password for mail, but no user");
    }
    if security == MailSecurity::None && table.is_there("password") {
        table.complain(
            "without TLS everybody on the way reads the password; write security = \"tls\" or \"starttls\", or leave the password out",
        );
    }
    table.finish();
    Some(Mail { server: server?, port, security, user, password, from: from?, to: to? })
}
