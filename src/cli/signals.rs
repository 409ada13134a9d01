//! Signals: the first asks the operation to stop, the second ends the program at once.
//!
//! A signal that was ignored when we were started (`nohup`, a shell's background jobs) stays ignored.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::output::complain_as_is;

/// Whether, and by which signal, the user asked to stop.
#[derive(Clone)]
pub struct Signals {
    interrupted: Arc<AtomicBool>,
    received: Arc<AtomicI32>,
}

impl Signals {
    /// Listens from now on.
    pub fn watch() -> Self {
        let signals = Self { interrupted: Arc::default(), received: Arc::default() };
        // With a handler in place a file size limit is an error of the write, and not our end. Handlers are not inherited.
        let _ = signal_hook::flag::register(Signal::XFSZ.as_raw(), Arc::new(AtomicBool::new(false)));
        let ignored = ignored_signals();
        let wanted = [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        if let Ok(mut incoming) = signal_hook::iterator::Signals::new(wanted) {
            let (interrupted, received) = (signals.interrupted.clone(), signals.received.clone());
            std::thread::spawn(move || {
                for signal in incoming.forever() {
                    // The cursor may stand in a progress bar.
                    let tell = |text: &str| {
                        if std::io::stderr().is_terminal() {
                            complain_as_is(text)
                        }
                    };
                    if interrupted.swap(true, Ordering::Relaxed) {
                        tell("\n");
                        std::process::exit(128 + signal);
                    }
                    received.store(signal, Ordering::Relaxed);
                    if signal == SIGINT {
                        tell("\nsnap: stopping; press Ctrl-C again to stop at once\n");
                    }
                }
            });
        }
        signals
    }

    /// Becomes true when the user asked to stop.
    pub fn interrupted(&self) -> Arc<AtomicBool> {
        self.interrupted.clone()
    }

    /// 128 and the number of the signal that asked us to stop.
    pub fn exit_code(&self) -> u8 {
        match self.received.load(Ordering::Relaxed) {
            0 => 128 + SIGINT as u8,
            signal => 128 + signal as u8,
        }
    }
}

/// The signals this process ignores, a bit each; none where that cannot be known.
fn ignored_signals() -> u64 {
    std::fs::read_to_string("/proc/self/status").map_or(0, |status| mask_in(&status))
}

fn mask_in(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found() {
        assert_eq!(mask_in("Name:\tsnap\nSigIgn:\t0000000000001001\nSigCgt:\t0\n"), 0x1001);
        assert_eq!(mask_in("Name:\tsnap\n"), 0);
    }
}
