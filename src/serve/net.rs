//! Connections: one thread looks after all of them and waits for none; a few others make the answers.
//!
//! Every connection takes one question, has a limited time for it and for taking the answer, and there is a limited number of them
//! and of questions that wait. So neither slow nor many nor huge requests take more than their share of memory, and none keeps others
//! from being answered.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::http::{self, Head, Request, Response};
use crate::error::{Error, Result};
use crate::limits::*;

/// How long a request may take to come.
const TIME_TO_ASK: Duration = Duration::from_secs(10);
/// How long an answer may take to be taken.
const TIME_TO_TAKE: Duration = Duration::from_secs(60);
/// How long what is still sent to us is listened to, so that the answer is not cut off.
const TIME_TO_LEAVE: Duration = Duration::from_secs(1);
/// How often we look whether we should stop.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// How long answers that are being made are waited for at the end.
const TIME_TO_END: Duration = Duration::from_secs(3);
/// Connections that are taken in one turn.
const ACCEPTED_A_TURN: usize = 32;

/// Makes an answer.
pub type Answer = dyn Fn(&Request) -> Response + Send + Sync;
type Question = (u64, Request);
type Answered = (u64, Vec<u8>);

/// Answers until `stop`.
pub fn run(listener: &TcpListener, answer: Arc<Answer>, stop: &AtomicBool) -> Result<()> {
    let failed = |error| Error::file("listen on", "the network", error);
    listener.set_nonblocking(true).map_err(failed)?;
    let (waker, wakened) = UnixStream::pair().map_err(failed)?;
    waker.set_nonblocking(true).and_then(|()| wakened.set_nonblocking(true)).map_err(failed)?;
    let (questions, asked) = bounded(SERVE_WAITING_MAX);
    let (answers, answered) = bounded(SERVE_CONNECTIONS_MAX);
    let mut workers = Vec::new();
    for _ in 0..SERVE_WORKERS {
        let (asked, answers, answer) = (asked.clone(), answers.clone(), answer.clone());
        let waker = waker.try_clone().map_err(failed)?;
        workers.push(std::thread::spawn(move || work(&asked, &answers, &*answer, &waker)));
    }
    let mut hall = Hall { connections: BTreeMap::new(), next: 0, questions, answered, wakened, deaf_until: None };
    while !stop.load(Ordering::Relaxed) {
        hall.turn(listener).map_err(failed)?;
    }
    drop(hall);
    finish(&workers);
    Ok(())
}

/// Lets what is at work end, but not for long: a store that hangs must not keep us.
fn finish(workers: &[JoinHandle<()>]) {
    let begun = Instant::now();
    while workers.iter().any(|worker| !worker.is_finished()) && begun.elapsed() < TIME_TO_END {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn work(asked: &Receiver<Question>, answers: &Sender<Answered>, answer: &Answer, waker: &UnixStream) {
    for (id, request) in asked {
        // A defect in one page is no reason to stop saying how the backups are.
        let response = catch_unwind(AssertUnwindSafe(|| answer(&request)));
        let response = response.unwrap_or_else(|_| Response::text(500, "Internal error; please report this"));
        if answers.send((id, response.bytes(request.is_head))).is_err() {
            return;
        }
        // If the pipe is full, there is a wake-up in it.
        let _ = (&*waker).write(&[1]);
    }
}

/// Where a connection is.
enum Phase {
    Asking(Vec<u8>),
    Waiting,
    Taking { bytes: Vec<u8>, sent: usize },
    Leaving,
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    until: Instant,
}

/// What comes of a connection after a step.
enum Next {
    Stay,
    Ask(Request),
    Close,
}

/// All connections, by age.
struct Hall {
    connections: BTreeMap<u64, Connection>,
    next: u64,
    questions: Sender<Question>,
    answered: Receiver<Answered>,
    wakened: UnixStream,
    /// No more connections are taken until then: there are no more file descriptors.
    deaf_until: Option<Instant>,
}

impl Hall {
    fn turn(&mut self, listener: &TcpListener) -> std::io::Result<()> {
        let now = Instant::now();
        self.connections.retain(|_, connection| connection.until > now);
        self.deaf_until = self.deaf_until.filter(|until| *until > now);
        let (is_called, ready) = self.wait(listener)?;
        self.take_answers();
        for id in ready {
            self.step(id);
        }
        if is_called {
            self.accept(listener);
        }
        Ok(())
    }

    /// Waits for something to happen: whether somebody calls, and whose turn it is.
    fn wait(&self, listener: &TcpListener) -> std::io::Result<(bool, Vec<u64>)> {
        let calls = if self.deaf_until.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(listener, calls), PollFd::new(&self.wakened, PollFlags::IN)];
        let mut ids = Vec::new();
        for (id, connection) in &self.connections {
            let wanted = match connection.phase {
                Phase::Asking(_) | Phase::Leaving => PollFlags::IN,
                Phase::Taking { .. } => PollFlags::OUT,
                // Whether it is still there will show when there is an answer for it.
                Phase::Waiting => continue,
            };
            fds.push(PollFd::from_borrowed_fd(connection.stream.as_fd(), wanted));
            ids.push(*id);
        }
        match poll(&mut fds, Some(&TURN)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok((false, Vec::new())),
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd| !fd.revents().is_empty();
        let ready = ids.iter().zip(&fds[2..]).filter(|(_, fd)| is_ready(fd)).map(|(id, _)| *id).collect();
        Ok((is_ready(&fds[0]) && self.deaf_until.is_none(), ready))
    }

    fn take_answers(&mut self) {
        let mut buffer = [0; 256];
        while matches!((&self.wakened).read(&mut buffer), Ok(read) if read == buffer.len()) {}
        let answered: Vec<Answered> = self.answered.try_iter().collect();
        for (id, bytes) in answered {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.give(bytes);
            }
            self.step(id);
        }
    }

    /// Goes on with a connection as far as that goes without waiting.
    fn step(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        match connection.step() {
            Next::Stay => {}
            Next::Close => drop(self.connections.remove(&id)),
            Next::Ask(request) => {
                if let Err(TrySendError::Full((_, request)) | TrySendError::Disconnected((_, request))) =
                    self.questions.try_send((id, request))
                {
                    let mut busy = Response::text(503, "Too many questions at once; ask again");
                    busy.more.push(("Retry-After", "5".into()));
                    connection.give(busy.bytes(request.is_head));
                    self.step(id);
                }
            }
        }
    }

    fn accept(&mut self, listener: &TcpListener) {
        for _ in 0..ACCEPTED_A_TURN {
            match listener.accept() {
                Ok((stream, _)) => self.take_in(stream),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.deaf_until = Some(Instant::now() + Duration::from_secs(1));
                    return;
                }
            }
        }
    }

    /// Where the hall is full, who has been here longest goes, unless its answer is being made.
    fn take_in(&mut self, stream: TcpStream) {
        if self.connections.len() >= SERVE_CONNECTIONS_MAX {
            let oldest = self.connections.iter().find(|(_, connection)| !matches!(connection.phase, Phase::Waiting));
            let Some(id) = oldest.map(|(id, _)| *id) else { return };
            self.connections.remove(&id);
        }
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        let _ = stream.set_nodelay(true);
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, Connection { stream, phase: Phase::Asking(Vec::new()), until: Instant::now() + TIME_TO_ASK });
        // Most requests are there already.
        self.step(id);
    }
}

impl Connection {
    fn give(&mut self, bytes: Vec<u8>) {
        self.phase = Phase::Taking { bytes, sent: 0 };
        self.until = Instant::now() + TIME_TO_TAKE;
    }

    fn step(&mut self) -> Next {
        let result = match &mut self.phase {
            Phase::Waiting => return Next::Stay,
            Phase::Asking(_) => self.listen(),
            Phase::Taking { .. } => self.send(),
            Phase::Leaving => self.see_off(),
        };
        match result {
            Ok(next) => next,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Next::Stay,
            Err(_) => Next::Close,
        }
    }

    fn listen(&mut self) -> std::io::Result<Next> {
        let Phase::Asking(bytes) = &mut self.phase else { return Ok(Next::Stay) };
        let mut piece = [0; 4096];
        loop {
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                return Ok(Next::Close);
            }
            let before = bytes.len();
            bytes.extend_from_slice(&piece[..read]);
            // A head that comes byte by byte is looked at only when a line ends.
            if !bytes[before..].contains(&b'\n') && bytes.len() < SERVE_HEAD_BYTES_MAX {
                continue;
            }
            match http::read(bytes) {
                Head::Unfinished => {}
                Head::Asked(request) => {
                    self.phase = Phase::Waiting;
                    // Answers come in time or not at all; none is waited for longer than this.
                    self.until = Instant::now() + 2 * TIME_TO_TAKE;
                    return Ok(Next::Ask(request));
                }
                Head::Wrong(response) => {
                    self.give(response.bytes(false));
                    return self.send();
                }
            }
        }
    }

    fn send(&mut self) -> std::io::Result<Next> {
        let Phase::Taking { bytes, sent } = &mut self.phase else { return Ok(Next::Stay) };
        while *sent < bytes.len() {
            match self.stream.write(&bytes[*sent..])? {
                0 => return Ok(Next::Close),
                written => *sent += written,
            }
        }
        self.stream.shutdown(Shutdown::Write)?;
        self.phase = Phase::Leaving;
        self.until = Instant::now() + TIME_TO_LEAVE;
        self.see_off()
    }

    fn see_off(&mut self) -> std::io::Result<Next> {
        let mut piece = [0; 4096];
        for _ in 0..16 {
            if self.stream.read(&mut piece)? == 0 {
                return Ok(Next::Close);
            }
        }
        Ok(Next::Stay)
    }
}
