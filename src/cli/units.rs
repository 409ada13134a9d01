//! What starts jobs at their times: units of systemd, a line for cron, a CronJob of Kubernetes. Only text is made here.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::{output, words};
use crate::config::{Config, Job, Schedule, SecretFrom, What, show_schedule};
use crate::error::show;

/// Characters in the name of a CronJob, to which Kubernetes adds some.
const CRON_JOB_NAME_MAX: usize = 52;
/// Of the hash of a name that had to be changed.
const HASH_CHARS: usize = 8;

/// What besides the configuration decides what is written.
pub struct Host {
    /// The program.
    pub program: PathBuf,
    /// Not root: units for the user's own service manager.
    pub user: Option<String>,
    /// Name of the time zone, if it has one.
    pub zone: Option<String>,
}

/// The names of a job's units, without an ending.
pub fn unit_name(job: &Job) -> String {
    format!("snap-{}", job.name)
}

/// The service of a job.
pub fn service(config: &Config, job: &Job, host: &Host) -> String {
    let mut lines = vec![
        "# Written by snap schedule. Run it again when snap.toml has changed.".into(),
        "[Unit]".into(),
        format!("Description=snap: the job {}", job.name),
        "Wants=network-online.target".into(),
        "After=network-online.target time-sync.target".into(),
        String::new(),
        "[Service]".into(),
        "Type=oneshot".into(),
        format!("ExecStart={}", command(config, job, host, systemd_word)),
        // The job has time-outs of its own.
        "TimeoutStartSec=infinity".into(),
        // Time to end the command of a stream, and to let the hooks run.
        "TimeoutStopSec=5min".into(),
        // The first signal is for snap, which ends its commands itself.
        "KillMode=mixed".into(),
        "Nice=10".into(),
        "UMask=0077".into(),
        "NoNewPrivileges=yes".into(),
    ];
    lines.extend(secrets(config, job));
    if host.user.is_none() {
        lines
            .extend(["CacheDirectory=snap", "StateDirectory=snap", "CacheDirectoryMode=0700", "StateDirectoryMode=0700"].map(String::from));
        lines.push("Environment=SNAP_CACHE_DIR=%C/snap SNAP_STATE_DIR=%S/snap".into());
        lines.extend(hardening(config, job));
    }
    lines.join("\n") + "\n"
}

/// The configuration and the job that a service runs, as they stand in it; nothing if snap schedule did not write it.
pub fn runs(service: &str) -> Option<&str> {
    let command = service.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    command.split_once(" --config ").map(|(_, runs)| runs)
}

/// The timer of a job.
pub fn timer(job: &Job) -> String {
    let calendar = match job.schedule {
        Schedule::Daily { hour, minute } => format!("*-*-* {hour:02}:{minute:02}:00"),
        Schedule::Hours(1) => "*-*-* *:00:00".into(),
        Schedule::Hours(hours) => format!("*-*-* 00/{hours}:00:00"),
        Schedule::Weekly { day, hour, minute } => {
            let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
            format!("{} *-*-* {hour:02}:{minute:02}:00", days[usize::from(day % 7)])
        }
    };
    let lines = [
        "# Written by snap schedule. Run it again when snap.toml has changed.".into(),
        "[Unit]".into(),
        format!("Description=snap: the job {}, {}", job.name, show_schedule(&job.schedule)),
        String::new(),
        "[Timer]".into(),
        format!("OnCalendar={calendar}"),
        // What was missed while the machine was off is made up for.
        "Persistent=true".into(),
        "RandomizedDelaySec=5min".into(),
        String::new(),
        "[Install]".into(),
        "WantedBy=timers.target".into(),
    ];
    lines.join("\n") + "\n"
}

/// The command that runs a job.
fn command(config: &Config, job: &Job, host: &Host, quote: impl Fn(&OsStr) -> String) -> String {
    let words = [host.program.as_os_str(), "--config".as_ref(), config.file.as_os_str(), "run".as_ref(), job.name.as_ref()];
    words.map(quote).join(" ")
}

/// A word of a command in a unit.
fn systemd_word(word: &OsStr) -> String {
    // Doubled first: `harmless` writes escapes that are meant.
    let text = word.to_string_lossy().replace('\\', "\\\\");
    let text = output::harmless(&text).replace('%', "%%").replace('$', "$$");
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:=,@%+$".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text,
        false => format!("\"{}\"", text.replace('"', "\\\"")),
    }
}

/// A path in a list of paths in a unit.
fn systemd_path(path: &Path) -> String {
    systemd_word(path.as_os_str()).replace("$$", "$")
}

/// Every secret the job needs.
fn sources_of_secrets<'a>(config: &'a Config, job: &'a Job) -> impl Iterator<Item = &'a SecretFrom> {
    let commands = job.sources.iter().flat_map(|source| source.what.commands());
    let notify = &config.notify;
    let of_notify = notify.webhooks.iter().map(|webhook| &webhook.url).chain(notify.pings.values());
    let of_mail = notify.mail.iter().filter_map(|mail| mail.password.as_ref());
    let of_commands = commands.flat_map(|command| command.secrets.iter().map(|(_, from)| from));
    config.repository.secret.iter().chain(of_commands).chain(of_notify).chain(of_mail)
}

fn credentials(config: &Config, job: &Job) -> BTreeSet<String> {
    let name = |from: &SecretFrom| if let SecretFrom::Credential(name) = from { Some(name.clone()) } else { None };
    sources_of_secrets(config, job).filter_map(name).collect()
}

fn variables(config: &Config, job: &Job) -> BTreeSet<String> {
    let name = |from: &SecretFrom| if let SecretFrom::Variable(name) = from { Some(name.clone()) } else { None };
    sources_of_secrets(config, job).filter_map(name).collect()
}

fn secrets(config: &Config, job: &Job) -> Vec<String> {
    let mut lines: Vec<String> =
        credentials(config, job).into_iter().map(|name| format!("LoadCredential={name}:/etc/credstore/{name}")).collect();
    let variables = variables(config, job);
    if !variables.is_empty() {
        lines.push(format!("# Must hold {}; better are credentials or files.", variables.into_iter().collect::<Vec<_>>().join(", ")));
        lines.push("EnvironmentFile=-/etc/snap/environment".into());
    }
    lines
}

/// Takes from the service what it does not need. What the commands of a job need besides goes into a drop-in (`systemctl edit`).
fn hardening(config: &Config, job: &Job) -> Vec<String> {
    let mut lines: Vec<String> = [
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        "PrivateDevices=yes",
        "ProtectClock=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "LockPersonality=yes",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
        "SystemCallArchitectures=native",
        // To read what others own, to be the user of run_as, and to end what that user runs.
        "CapabilityBoundingSet=CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SETUID CAP_SETGID CAP_KILL CAP_AUDIT_WRITE",
    ]
    .map(String::from)
    .to_vec();
    let written = written(config, job);
    let read: Vec<&PathBuf> = job
        .sources
        .iter()
        .flat_map(|source| match &source.what {
            What::Files { paths, .. } => paths.iter().collect(),
            What::Sqlite { database, .. } => vec![database],
            What::Command(_) | What::Tables(_) => Vec::new(),
        })
        .collect();
    // Else what is to be saved would be hidden.
    let is_temporary = |path: &Path| ["/tmp", "/var/tmp"].iter().any(|top| path.starts_with(top)) || path == Path::new("/");
    if !written.iter().chain(read).any(|path| is_temporary(path)) {
        lines.push("PrivateTmp=yes".into());
    }
    // What is not there must not keep the service from starting: only snap tells whom it concerns that a disk is not mounted.
    lines.extend(written.iter().map(|path| format!("ReadWritePaths=-{}", systemd_path(path))));
    lines
}

/// What a run writes to.
fn written(config: &Config, job: &Job) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    found.extend(config.repository.path.clone());
    found.extend(config.repository.metrics_file.iter().filter_map(|file| Some(file.parent()?.to_path_buf())));
    for source in &job.sources {
        match &source.what {
            What::Files { paths, before: Some(_), .. } => found.extend(paths.iter().cloned()),
            // A reader of a database with a write-ahead log writes beside it.
            What::Sqlite { database, .. } => found.extend(database.parent().map(Path::to_path_buf)),
            _ => {}
        }
    }
    found
}

/// The five fields of cron.
fn cron_times(schedule: &Schedule) -> String {
    match schedule {
        Schedule::Daily { hour, minute } => format!("{minute} {hour} * * *"),
        Schedule::Hours(1) => "0 * * * *".into(),
        Schedule::Hours(hours) => format!("0 */{hours} * * *"),
        // Monday is 1 there, and Sunday 0.
        Schedule::Weekly { day, hour, minute } => format!("{minute} {hour} * * {}", (day + 1) % 7),
    }
}

/// A line for a crontab. Silent unless something is wrong, so that cron sends mail then.
pub fn cron(config: &Config, job: &Job, host: &Host) -> String {
    let words = command(config, job, host, words::quote).replacen(" --config", " -q --config", 1);
    // A percent sign is a line end there.
    format!("{}  {}", cron_times(&job.schedule), words.replace('%', "\\%"))
}

/// The name of a CronJob, for which fewer characters are allowed. Those of two jobs differ.
fn cron_job_name(job: &Job) -> String {
    let own = unit_name(job);
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let name: String = own.to_ascii_lowercase().chars().map(allowed).collect();
    if name == own && name.len() <= CRON_JOB_NAME_MAX && !name.ends_with('-') {
        return name;
    }
    let hash = &blake3::hash(job.name.as_bytes()).to_hex()[..HASH_CHARS];
    let short: String = name.chars().take(CRON_JOB_NAME_MAX - 1 - HASH_CHARS).collect();
    format!("{}-{hash}", short.trim_end_matches('-'))
}

/// A CronJob. The image, the config map, the secret and the claims are the cluster's.
pub fn kubernetes(config: &Config, job: &Job, host: &Host) -> String {
    let name = cron_job_name(job);
    let zone = host.zone.as_ref().map(|zone| format!("  timeZone: {}\n", yaml(zone))).unwrap_or_default();
    let repository = config.repository.path.as_deref().map_or("/srv/backup".into(), show);
    let folder = config.file.parent().map_or("/etc/snap".into(), show);
    let environment: String = variables(config, job)
        .into_iter()
        .map(|variable| {
            let key = variable.to_ascii_lowercase().replace('_', "-");
            format!("            - name: {variable}\n              valueFrom: {{ secretKeyRef: {{ name: snap, key: {} }} }}\n", yaml(&key))
        })
        .collect();
    format!(
        "# Written by snap schedule --kubernetes. It needs an image with snap and the dump programs, a ConfigMap \"snap-config\" with
# snap.toml, a Secret \"snap\" with the credentials, and claims for the repository and for this job's state.
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {name}
spec:
  schedule: {times}
{zone}  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          restartPolicy: Never
          automountServiceAccountToken: false
          terminationGracePeriodSeconds: 300
          securityContext: {{ runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {{ type: RuntimeDefault }} }}
          containers:
          - name: snap
            image: snap:latest
            args: [\"--config\", {file}, \"run\", {job}]
            env:
            - {{ name: SNAP_HOST, value: {host} }}
            - {{ name: SNAP_STATE_DIR, value: /var/lib/snap }}
            - {{ name: SNAP_CACHE_DIR, value: /var/cache/snap }}
            - {{ name: CREDENTIALS_DIRECTORY, value: /run/credentials/snap }}
{environment}            securityContext: {{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{ drop: [ALL] }} }}
            volumeMounts:
            - {{ name: config, mountPath: {folder}, readOnly: true }}
            - {{ name: credentials, mountPath: /run/credentials/snap, readOnly: true }}
            - {{ name: repository, mountPath: {repository} }}
            - {{ name: state, mountPath: /var/lib/snap }}
            - {{ name: cache, mountPath: /var/cache/snap }}
            - {{ name: tmp, mountPath: /var/tmp }}
          volumes:
          - {{ name: config, configMap: {{ name: snap-config }} }}
          - {{ name: credentials, secret: {{ secretName: snap, defaultMode: 0400 }} }}
          - {{ name: repository, persistentVolumeClaim: {{ claimName: snap-repository }} }}
          - {{ name: state, persistentVolumeClaim: {{ claimName: snap-state }} }}
          - {{ name: cache, emptyDir: {{}} }}
          - {{ name: tmp, emptyDir: {{}} }}
",
        times = yaml(&cron_times(&job.schedule)),
        file = yaml(&show(&config.file)),
        job = yaml(&job.name),
        // The name of a pod is another every night, and the group of snapshots must not be.
        host = yaml(config.repository.host.as_deref().unwrap_or("kubernetes")),
        folder = yaml(&folder),
        repository = yaml(&repository),
    )
}

/// A text in YAML, of which JSON's are some.
fn yaml(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let parsed = crate::config::parse(text.as_bytes(), Path::new("/etc/snap/snap.toml"));
        let errors: Vec<_> = parsed.errors().collect();
        assert!(errors.is_empty(), "{errors:?}");
        parsed.config
    }

    fn host() -> Host {
        Host { program: "/usr/local/bin/snap".into(), user: None, zone: Some("Europe/Berlin".into()) }
    }

    fn job(schedule: &str) -> Config {
        config(&format!("[repository]\npath = \"/srv/back up\"\n[jobs.orders]\nschedule = \"{schedule}\"\ncommand = [\"x\"]\n"))
    }

    #[test]
    fn times_are_the_same_everywhere() {
        for (schedule, calendar, cron_line) in [
            ("daily 02:15", "OnCalendar=*-*-* 02:15:00\n", "15 2 * * *  "),
            ("hourly", "OnCalendar=*-*-* *:00:00\n", "0 * * * *  "),
            ("every 6h", "OnCalendar=*-*-* 00/6:00:00\n", "0 */6 * * *  "),
            ("weekly sunday 03:05", "OnCalendar=Sun *-*-* 03:05:00\n", "5 3 * * 0  "),
            ("weekly monday 03:05", "OnCalendar=Mon *-*-* 03:05:00\n", "5 3 * * 1  "),
        ] {
            let config = job(schedule);
            let job = &config.jobs["orders"];
            assert!(timer(job).contains(calendar), "{}", timer(job));
            let line = cron(&config, job, &host());
            assert_eq!(line, format!("{cron_line}/usr/local/bin/snap -q --config /etc/snap/snap.toml run orders"));
            assert!(kubernetes(&config, job, &host()).contains(&format!("schedule: \"{}\"\n", cron_line.trim_end())));
        }
    }

    #[test]
    fn a_service_may_write_where_it_must_and_nowhere_else() {
        let config = job("hourly");
        let text = service(&config, &config.jobs["orders"], &host());
        assert!(text.contains("ExecStart=/usr/local/bin/snap --config /etc/snap/snap.toml run orders\n"));
        // Also where it is not there: systemd would end it before anybody is told.
        assert!(text.contains("ReadWritePaths=-\"/srv/back up\"\n") && text.contains("PrivateTmp=yes\n"));
        // What is to be saved is not hidden.
        let config = config_of_files("/var/tmp/x");
        assert!(!service(&config, &config.jobs["a"], &host()).contains("PrivateTmp"));
        // A user's own manager has no such powers.
        let text = service(&config, &config.jobs["a"], &Host { user: Some("u".into()), ..host() });
        assert!(!text.contains("ProtectSystem") && text.contains("NoNewPrivileges=yes"));
    }

    fn config_of_files(path: &str) -> Config {
        config(&format!("[repository]\npath = \"/r\"\n[jobs.a]\nfiles = [\"{path}\"]\n"))
    }

    #[test]
    fn words_of_units_mean_themselves() {
        for (word, expected) in
            [("/a/b", "/a/b"), ("/a b", "\"/a b\""), ("100%", "100%%"), ("$x", "$$x"), ("a\"b", "\"a\\\"b\""), ("a\\b", "\"a\\\\b\"")]
        {
            assert_eq!(systemd_word(word.as_ref()), expected);
        }
    }

    #[test]
    fn cron_jobs_have_names_that_differ() {
        let name = |job: &str| {
            let config = config(&format!("[repository]\npath = \"/r\"\n[jobs.\"{job}\"]\ncommand = [\"x\"]\n"));
            cron_job_name(&config.jobs[job])
        };
        assert_eq!(name("orders-2"), "snap-orders-2");
        let long = "x".repeat(60);
        let names = ["a-b", "a_b", "a.b", "A-b", "a-b-", &long, &format!("{long}y")].map(name);
        let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(names.iter().all(|name| name.len() <= 52 && name.chars().all(is_allowed) && !name.ends_with('-')), "{names:?}");
        let different: BTreeSet<&String> = names.iter().collect();
        assert_eq!(different.len(), names.len(), "{names:?}");
    }
}
