//! `snap serve`: what `snap status` says, as pages to look at and answers for monitors. Nothing here writes, and nothing leaves the
//! repository but names, times, sizes and verdicts: no page shows what is in a file.
//!
//! From the outside in: `net` (connections), `http` (heads and answers), `guard` (who may look), this file (which path is what), `state`
//! (what is known), and pages.

mod charts;
mod guard;
mod html;
mod http;
mod jobs;
mod net;
mod reports;
mod snapshots;
mod state;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::json;

use crate::error::{Error, Result};
use crate::index::Scope;
use crate::limits::*;
use crate::ops::browse;
use crate::ops::status::{health, metrics};
use crate::repo::{Repository, Selection};

use guard::Guard;
use http::{Request, Response};
pub use state::Expect;
use state::{View, Watch};

/// How long a folder of a snapshot may be looked for.
const BROWSING_MAX: Duration = Duration::from_secs(20);

/// What is served, and to whom.
pub struct Options {
    pub expected: Expect,
    /// Who shows it may look. Without one: who comes by a name of this machine.
    pub token: Option<zeroize::Zeroizing<Vec<u8>>>,
    /// Of times on pages.
    pub zone: TimeZone,
}

/// Answers whoever connects, until `stop`.
pub fn serve(repository: Repository, listener: &TcpListener, options: Options, stop: Arc<AtomicBool>) -> Result<()> {
    let guard = Guard::new(options.token.as_deref().map(Vec::as_slice));
    let Options { expected, zone, .. } = options;
    let stopped = stop.clone();
    let site = Site { repository, expected, guard, zone, watch: Watch::default(), browsing: AtomicUsize::new(0), stop };
    net::run(listener, Arc::new(move |request| site.answer(request)), &stopped)
}

struct Site {
    repository: Repository,
    expected: Expect,
    guard: Guard,
    zone: TimeZone,
    watch: Watch,
    /// How many look into snapshots now.
    browsing: AtomicUsize,
    stop: Arc<AtomicBool>,
}

impl Site {
    fn answer(&self, request: &Request) -> Response {
        if let Some(response) = self.guard.stop(request) {
            return response;
        }
        let Some(parts) = request.parts() else { return nothing() };
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let is_known = matches!(parts[..], [] | ["health" | "metrics" | "runs" | "drills" | "snapshots"])
            || matches!(parts.first(), Some(&("health" | "job" | "snapshot"))) && parts.len() <= 4;
        if !is_known {
            return nothing();
        }
        let view = match self.watch.look(&self.repository, &self.expected) {
            Ok(view) => view,
            Err(error) => return unreadable(&parts, &error),
        };
        match parts[..] {
            ["health"] => self.health(&view, None),
            ["health", job] => self.health(&view, Some(job)),
            ["metrics"] => Response::metrics(metrics(&view.status)),
            _ => self.page(&view, &parts, request),
        }
    }

    /// The small answer, with 503 unless all is well: as `snap status --health` has another exit code.
    fn health(&self, view: &View, job: Option<&str>) -> Response {
        let mut status = view.status.clone();
        let jobs: Vec<String> = job.map(str::to_owned).into_iter().collect();
        if let Err(error) = status.narrow(&jobs, &[]) {
            return Response::json(404, &json!({"status": "unknown", "error": error.to_string()}));
        }
        Response::json(if status.healthy { 200 } else { 503 }, &health(&status))
    }

    fn page(&self, view: &View, parts: &[&str], request: &Request) -> Response {
        let (zone, page) = (&self.zone, request.number("page"));
        let found = match *parts {
            [] => Some(jobs::all(view, zone, page)),
            ["runs"] => Some(reports::all_runs(view, zone, page)),
            ["drills"] => Some(reports::all_drills(view, zone, page)),
            ["snapshots"] => Some(snapshots::list(view, None, zone, page)),
            ["job", host, job] => match view.job(host, job) {
                Some(job) => Some(jobs::one(view, job, zone)),
                // What was a job once.
                None => snapshots::of_stream(view, host, job, zone, page),
            },
            ["job", host, job, "snapshots"] => snapshots::of_stream(view, host, job, zone, page),
            ["snapshot", id] => match view.by_prefix(id)[..] {
                [stored] => Some(snapshots::one(stored, zone)),
                _ => None,
            },
            ["snapshot", id, "files"] => match view.by_prefix(id)[..] {
                [stored] => {
                    let folder = request.value("in").unwrap_or_default();
                    let folder = folder.trim_ascii_end();
                    let path = folder.iter().position(|byte| *byte != b'/').map_or(&[][..], |at| &folder[at..]);
                    let selection = Selection { stored: stored.clone(), path: path.to_vec() };
                    return self.files(&selection, &request.value("after").unwrap_or_default());
                }
                _ => None,
            },
            _ => None,
        };
        found.map_or_else(nothing, |body| Response::html(200, body))
    }

    /// A folder of a snapshot. Only a few of these at a time, so that there is always somebody left to answer the rest.
    fn files(&self, selection: &Selection, after: &[u8]) -> Response {
        let turn = Turn(&self.browsing);
        if self.browsing.fetch_add(1, Ordering::SeqCst) >= SERVE_BROWSING_MAX {
            let mut busy = Response::html(503, html::message("Busy", "Others are looking through files just now; ask again"));
            busy.more.push(("Retry-After", "5".into()));
            return busy;
        }
        let begun = Instant::now();
        let going_on = || match (self.stop.load(Ordering::Relaxed), begun.elapsed() > BROWSING_MAX) {
            (true, _) => Err(Error::Interrupted),
            (_, true) => Err(Error::TimedOut("This folder is too large to be looked through here; snap ls has all the time".into())),
            _ => Ok(()),
        };
        // The snapshot may be younger than what is known of where things are.
        let located = self.repository.locator_up_to(Scope::Frames).map(drop);
        let listed = located.and_then(|()| browse::page(&self.repository, selection, after, SERVE_PAGE_ROWS, &going_on));
        drop(turn);
        match listed {
            Ok(page) => Response::html(200, snapshots::files(&selection.stored, &selection.path, &page, &self.zone)),
            Err(error @ Error::NotFound(_)) => Response::html(404, html::message("Not there", &error.to_string())),
            Err(error) => Response::html(503, html::message("This folder cannot be shown", &error.to_string())),
        }
    }
}

/// Gives the place back, whatever happens.
struct Turn<'a>(&'a AtomicUsize);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn nothing() -> Response {
    Response::html(404, html::message("Not there", "There is no such page"))
}

/// Nothing can be said of the backups: that is never healthy.
fn unreadable(parts: &[&str], error: &str) -> Response {
    match parts.first() {
        Some(&"health") => Response::json(503, &json!({"lastBackup": null, "status": "unhealthy", "backupAge": null, "error": error})),
        Some(&"metrics") => Response::text(503, &format!("The repository cannot be read: {error}")),
        _ => Response::html(503, html::message("The repository cannot be read", error)),
    }
}
