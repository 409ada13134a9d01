//! The small answer that simple health checks know.

use serde_json::{Value, json};

use super::Status;
use crate::wording::count;

/// `lastBackup`, `status` and `backupAge` of the job that is worst off, and what is missed.
pub fn health(status: &Status) -> Value {
    let oldest = status.oldest_good();
    let mut answer = json!({
        "lastBackup": oldest.map(|(time, _)| time),
        "status": if status.healthy { "healthy" } else { "unhealthy" },
        "backupAge": oldest.map(|(_, age)| rough(age)),
    });
    if !status.healthy {
        let missed = status.missed().map(|(job, missed)| match job {
            Some(job) => format!("{} on {}: {}", job.job, job.host, missed.message),
            None => missed.message.clone(),
        });
        answer["missed"] = missed.collect();
    }
    answer
}

/// A length of time in one unit: `12 hours`.
pub fn rough(seconds: f64) -> String {
    let minutes = (seconds / 60.0) as u64;
    match minutes {
        0..120 => count(minutes, "minute"),
        120..2880 => count(minutes / 60, "hour"),
        _ => count(minutes / 1440, "day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_roughly() {
        for (seconds, said) in [(59.0, "0 minutes"), (61.0, "1 minute"), (43_300.0, "12 hours"), (200_000.0, "2 days")] {
            assert_eq!(rough(seconds), said);
        }
    }
}
