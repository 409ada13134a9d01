//! What all ways to somebody have in common: the time that is left, and words for what went wrong that hold no address.

use std::time::{Duration, Instant};

/// The time that is left, and never none: that would mean without end.
pub fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// What an error of the system's means. The kind says enough, and no more.
pub fn io(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "it refused the connection".into(),
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => "it did not answer in time".into(),
        std::io::ErrorKind::InvalidData => "TLS failed; is its certificate valid here?".into(),
        kind => kind.to_string(),
    }
}
