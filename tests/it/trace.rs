//! Runs the program as a debugger would, and decides about each call to the kernel that changes a file before it is made: let it be,
//! fail it, do half of it, or kill the program there.
//!
//! Calls are seen in one order over all threads and processes of a run, so "killed at the Nth call" means what it says. (`strace -e
//! inject=...:when=N` counts the calls of every thread and of every kind apart: the first thread to come to its Nth ends the run, and
//! the Nth of all others is never tried.) Which call is the Nth differs from run to run where threads work side by side.
//!
//! Linux on x86-64 only, and only where processes may be traced; elsewhere the tests that need this say that they are skipped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a call would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    Create,
    Write,
    Resize,
    Sync,
    SyncAll,
    Rename,
    Link,
    Unlink,
    MakeFolder,
    /// Owner, mode, times, attributes.
    Describe,
    Open,
    Read,
}

impl What {
    /// Whether the disk is another afterwards.
    pub fn changes(self) -> bool {
        !matches!(self, Self::Open | Self::Read)
    }

    /// Whether a full disk can refuse it.
    pub fn needs_space(self) -> bool {
        matches!(self, Self::Create | Self::Write | Self::Resize | Self::Rename | Self::Link | Self::MakeFolder)
    }
}

/// A call that is about to be made on something below the watched folder.
#[derive(Clone, Debug)]
pub struct Call {
    pub thread: i32,
    pub what: What,
    pub path: PathBuf,
    /// The new name of a link or of what is renamed.
    pub to: Option<PathBuf>,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Go,
    /// The program is killed before the call is made.
    Kill,
    /// The call is not made; it returns this error.
    Fail(i32),
    /// Half of the bytes are written, and that is what the call returns.
    Half,
}

/// Who decides, and hears how it went.
pub trait Watcher {
    fn before(&mut self, call: &Call) -> Order;

    /// After a call that was made and did not fail.
    fn after(&mut self, _call: &Call) {}
}

impl<F: FnMut(&Call) -> Order> Watcher for F {
    fn before(&mut self, call: &Call) -> Order {
        self(call)
    }
}

/// How a traced run ended.
#[derive(Debug)]
pub struct Ran {
    /// None: it was killed.
    pub code: Option<i32>,
    pub said: String,
}

/// A command line, and a file for its standard input. Environment and folder are taken from `command`.
pub fn run(command: &Command, input: Option<&Path>, watched: &Path, watcher: &mut dyn Watcher) -> Ran {
    // Waits until it is watched, then becomes the program.
    let script = "read -r go; exec \"$0\" \"$@\" <\"$TRACED_INPUT\"";
    let mut waiting = Command::new("/bin/sh");
    waiting.args(["-c", script]).arg(command.get_program()).args(command.get_args()).env_clear();
    waiting.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // Or it hides its open files from who is not root.
    waiting.env("SNAP_ALLOW_CORE_DUMPS", "1").env("TRACED_INPUT", input.unwrap_or(Path::new("/dev/null")));
    if let Some(folder) = command.get_current_dir() {
        waiting.current_dir(folder);
    }
    let said = tempfile::tempfile().unwrap();
    waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said.try_clone().unwrap());
    #[expect(clippy::zombie_processes, reason = "the tracer waits for it")]
    let mut child = waiting.spawn().unwrap();
    let mut go = child.stdin.take().unwrap();
    let code = tracer::follow(child.id() as i32, watched, watcher, || go.write_all(b"\n").unwrap());
    let mut text = String::new();
    use std::io::Seek;
    let mut said: File = said;
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    Ran { code, said: text }
}

/// Whether processes can be traced here; says so if not.
pub fn is_possible(test: &str) -> bool {
    let possible = tracer::is_possible();
    if !possible {
        eprintln!("SKIPPED: {test}: processes cannot be traced here (it takes Linux on x86-64 and the right to ptrace)");
    }
    possible
}

/// A path as the kernel would find it from a folder.
fn joined(folder: &Path, name: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(name).components() {
        match part {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            part => path.push(part),
        }
    }
    path
}

fn link_of(process: i32, name: &str) -> PathBuf {
    fs::read_link(format!("/proc/{process}/{name}")).unwrap_or_default()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu"))]
mod tracer {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::FileExt;

    use nix::errno::Errno;
    use nix::libc;
    use nix::sys::ptrace::{self, Options};
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::*;

    const ENTRY: u8 = libc::PTRACE_SYSCALL_INFO_ENTRY;

    pub fn is_possible() -> bool {
        static POSSIBLE: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *POSSIBLE.get_or_init(|| {
            let Ok(mut child) = Command::new("/bin/cat").stdin(Stdio::piped()).spawn() else { return false };
            let possible = ptrace::seize(Pid::from_raw(child.id() as i32), Options::empty()).is_ok();
            let _ = child.kill();
            let _ = child.wait();
            possible
        })
    }

    /// A call that was entered and has not returned.
    struct Entered {
        call: Call,
        order: Order,
    }

    struct Tracer<'a> {
        main: Pid,
        watched: &'a Path,
        watcher: &'a mut dyn Watcher,
        entered: HashMap<Pid, Entered>,
    }

    /// Follows a process that waits for `go`, with all it starts, until all have ended. Returns its exit code unless it was killed.
    pub fn follow(process: i32, watched: &Path, watcher: &mut dyn Watcher, go: impl FnOnce()) -> Option<i32> {
        let main = Pid::from_raw(process);
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(main, options).unwrap();
        go();
        let mut tracer = Tracer { main, watched, watcher, entered: HashMap::new() };
        let mut code = None;
        // Only what this thread started: tests on other threads have children of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return code,
                Err(error) => panic!("waitpid: {error}"),
                Ok(WaitStatus::Exited(process, exited)) if process == main => code = Some(exited),
                Ok(WaitStatus::Stopped(process, signal)) => resume(process, Some(signal)),
                Ok(WaitStatus::PtraceEvent(process, _, _)) => resume(process, None),
                Ok(WaitStatus::PtraceSyscall(process)) => {
                    // An error: it was killed meanwhile.
                    if let Ok(info) = ptrace::syscall_info(process) {
                        let _ = if info.op == ENTRY { tracer.enter(process) } else { tracer.leave(process) };
                    }
                    resume(process, None);
                }
                Ok(_) => {}
            }
        }
    }

    fn resume(process: Pid, signal: Option<Signal>) {
        let _ = ptrace::syscall(process, signal);
    }

    impl Tracer<'_> {
        fn enter(&mut self, process: Pid) -> nix::Result<()> {
            let mut registers = ptrace::getregs(process)?;
            let Some(call) = self.call(process, &registers) else { return Ok(()) };
            let order = self.watcher.before(&call);
            match order {
                Order::Go => {}
                Order::Kill => kill(self.main, Signal::SIGKILL)?,
                Order::Half => {
                    registers.rdx = registers.rdx.div_ceil(2);
                    ptrace::setregs(process, registers)?;
                }
                Order::Fail(_) => {
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(process, registers)?;
                }
            }
            self.entered.insert(process, Entered { call, order });
            Ok(())
        }

        fn leave(&mut self, process: Pid) -> nix::Result<()> {
            let Some(entered) = self.entered.remove(&process) else { return Ok(()) };
            let mut registers = ptrace::getregs(process)?;
            if let Order::Fail(error) = entered.order {
                registers.rax = (-i64::from(error)) as u64;
                return ptrace::setregs(process, registers);
            }
            if registers.rax as i64 >= 0 {
                self.watcher.after(&entered.call);
            }
            Ok(())
        }

        /// What a call would do, if it is on something we watch.
        fn call(&self, process: Pid, registers: &libc::user_regs_struct) -> Option<Call> {
            let thread = process.as_raw();
            let here = i64::from(libc::AT_FDCWD) as u64;
            let (a, b, c, d) = (registers.rdi, registers.rsi, registers.rdx, registers.r10);
            let open = |what| Some((what, self.file(thread, a)?, None));
            let at = |what, folder, name| Some((what, self.path(thread, folder, name)?, None));
            let two = |what, from: (u64, u64), to: (u64, u64)| {
                Some((what, self.path(thread, from.0, from.1)?, Some(self.path(thread, to.0, to.1)?)))
            };
            let opened = |flags: u64| if flags & libc::O_CREAT as u64 != 0 { What::Create } else { What::Open };
            let (what, path, to) = match registers.orig_rax as i64 {
                libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => open(What::Write),
                libc::SYS_ftruncate | libc::SYS_fallocate => open(What::Resize),
                libc::SYS_fsync | libc::SYS_fdatasync => open(What::Sync),
                libc::SYS_syncfs => open(What::SyncAll),
                libc::SYS_fchmod | libc::SYS_fchown | libc::SYS_fsetxattr => open(What::Describe),
                libc::SYS_read | libc::SYS_pread64 | libc::SYS_readv | libc::SYS_preadv | libc::SYS_getdents64 => open(What::Read),
                libc::SYS_openat => at(opened(c), a, b),
                libc::SYS_open => at(opened(b), here, a),
                libc::SYS_rename => two(What::Rename, (here, a), (here, b)),
                libc::SYS_renameat | libc::SYS_renameat2 => two(What::Rename, (a, b), (c, d)),
                libc::SYS_link => two(What::Link, (here, a), (here, b)),
                libc::SYS_linkat => two(What::Link, (a, b), (c, d)),
                libc::SYS_unlink | libc::SYS_rmdir => at(What::Unlink, here, a),
                libc::SYS_unlinkat => at(What::Unlink, a, b),
                libc::SYS_mkdir => at(What::MakeFolder, here, a),
                libc::SYS_mkdirat => at(What::MakeFolder, a, b),
                libc::SYS_symlink => at(What::Create, here, b),
                libc::SYS_symlinkat => at(What::Create, b, c),
                libc::SYS_mknodat => at(What::Create, a, b),
                libc::SYS_utimensat if b == 0 => open(What::Describe),
                libc::SYS_utimensat | libc::SYS_fchmodat | libc::SYS_fchownat => at(What::Describe, a, b),
                _ => None,
            }?;
            let seen = |path: &Path| path.starts_with(self.watched);
            (seen(&path) || to.as_deref().is_some_and(seen)).then_some(Call { thread, what, path, to })
        }

        fn file(&self, thread: i32, number: u64) -> Option<PathBuf> {
            let path = link_of(thread, &format!("fd/{}", number as i32));
            path.is_absolute().then_some(path)
        }

        fn path(&self, thread: i32, folder: u64, name: u64) -> Option<PathBuf> {
            let name = PathBuf::from(text(thread, name)?);
            if name.is_absolute() {
                return Some(joined(Path::new("/"), &name));
            }
            let folder = if folder as i32 == libc::AT_FDCWD { link_of(thread, "cwd") } else { self.file(thread, folder)? };
            Some(joined(&folder, &name))
        }
    }

    /// The text at an address of a traced process.
    fn text(thread: i32, address: u64) -> Option<OsString> {
        let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
        let mut bytes = Vec::new();
        loop {
            // Up to the end of the page: the next one may not be there.
            let at = address + bytes.len() as u64;
            let mut part = vec![0; (4096 - at % 4096).min(256) as usize];
            memory.read_exact_at(&mut part, at).ok()?;
            let end = part.iter().position(|byte| *byte == 0);
            bytes.extend_from_slice(&part[..end.unwrap_or(part.len())]);
            if end.is_some() || bytes.len() > 8192 {
                return Some(OsString::from_vec(bytes));
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")))]
mod tracer {
    use super::*;

    pub fn is_possible() -> bool {
        false
    }

    pub fn follow(_: i32, _: &Path, _: &mut dyn Watcher, _: impl FnOnce()) -> Option<i32> {
        unreachable!("nothing is traced here")
    }
}

/// The order of the calls of one small program, as it should be seen.
#[test]
fn calls_are_seen_failed_halved_and_cut_off() {
    if !is_possible("calls_are_seen_failed_halved_and_cut_off") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = fs::canonicalize(folder.path()).unwrap();
    let mut script = Command::new("/bin/sh");
    script.args(["-c", "mkdir a; printf 12345678 > a/b; mv a/b c; rm c"]).current_dir(&place).env("PATH", "/usr/bin:/bin");
    let changes = |order: &dyn Fn(&Call) -> Order| {
        let mut seen = Vec::new();
        let ran = run(&script, None, &place, &mut |call: &Call| {
            if call.what.changes() {
                seen.push((call.what, call.path.strip_prefix(&place).unwrap().to_str().unwrap().to_owned()));
            }
            order(call)
        });
        (ran, seen)
    };
    let list = |seen: &[(What, &str)]| seen.iter().map(|(what, path)| (*what, path.to_string())).collect::<Vec<_>>();
    let whole = [(What::MakeFolder, "a"), (What::Create, "a/b"), (What::Write, "a/b"), (What::Rename, "a/b"), (What::Unlink, "c")];
    let (ran, seen) = changes(&|_| Order::Go);
    assert_eq!((ran.code, seen), (Some(0), list(&whole)));
    fs::remove_dir(place.join("a")).unwrap();
    let (ran, seen) = changes(&|call| if call.what == What::Rename { Order::Kill } else { Order::Go });
    assert_eq!((ran.code, seen), (None, list(&whole[..4])));
}
