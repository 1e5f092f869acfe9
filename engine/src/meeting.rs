//! Processes that know each other by TCP, for small messages and to notice who is gone. Process 0 has a connection to every other
//! one. The system closes the connections of a process that ends in any way.

use crate::cuda::Failure;
use crate::{Error, Result};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a process waits for another one.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// After this time the user is told.
    pub quiet: Duration,
    /// After this time the wait is an error.
    pub most: Duration,
    /// Tells the user, e.g. `waiting for process 3`.
    pub tell: fn(&str),
}

/// How often a process that waits for a message looks for other news.
const TICK: Duration = Duration::from_millis(100);

/// The first bytes of a connection.
const GREETING: [u8; 8] = *b"together";

/// The most bytes of the text of an error.
const LONGEST: usize = 1 << 16;

/// One of the processes.
#[derive(Debug)]
pub(crate) struct Meeting {
    pub rank: usize,
    pub size: usize,
    patience: Patience,
    /// Of process 0 to the others, in their order; of another one to process 0.
    lines: Vec<Line>,
    /// The first error, after which this process gets no other.
    failure: Failure,
    /// Whether another process told it.
    told: AtomicBool,
}

#[derive(Debug)]
struct Line {
    peer: usize,
    stream: TcpStream,
}

impl Meeting {
    /// Meets the other processes. Number 0 listens at the port of `address`, `HOST:PORT`, which is its machine's.
    ///
    /// # Errors
    /// If a process does not come in time, comes twice, or expects another number of processes.
    pub fn at(address: &str, rank: usize, size: usize, patience: Patience) -> Result<Self> {
        let lines =
            if rank == 0 { receive(address, size, patience)? } else { vec![call(address, rank, size, patience)?] };
        Ok(Self { rank, size, patience, lines, failure: Failure::default(), told: AtomicBool::new(false) })
    }

    /// The numbers of all processes in their order. Process 0 tells whom it waits for.
    pub fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        let mut all = vec![0; self.size * own.len()];
        if self.rank > 0 {
            self.keep(|| self.send(&self.lines[0], bytemuck::cast_slice(own)))?;
        } else {
            all[..own.len()].copy_from_slice(own);
            let theirs = all[own.len()..].chunks_mut(own.len());
            self.keep(|| {
                let mut lines = self.lines.iter().zip(theirs);
                lines.try_for_each(|(line, theirs)| self.read(line, bytemuck::cast_slice_mut(theirs)))
            })?;
        }
        self.broadcast(bytemuck::cast_slice_mut(&mut all))?;
        Ok(all)
    }

    /// Replaces `bytes` by those of process 0.
    pub fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        self.keep(|| match self.rank {
            0 => self.lines.iter().try_for_each(|line| self.send(line, bytes)),
            _ => self.read(&self.lines[0], bytes),
        })
    }

    /// Whether all are still there, as far as this process can tell, after it has waited for so long.
    ///
    /// # Errors
    /// That of a process which had one, or one that names who is gone.
    pub fn check(&self, waited: Duration) -> Result<()> {
        self.keep(|| {
            if waited > self.limit() {
                return Err(Error::new(format!("the other processes have not answered for {} s", waited.as_secs())));
            }
            self.lines.iter().try_for_each(|line| self.listen(line))
        })
    }

    /// Does nothing after an error.
    fn keep(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.failure.check()?;
        self.failure.keep(work())
    }

    /// Tells the others that this process has an error. Returns whether it is to report the error itself: process 0 reports for
    /// all, and number 1 if process 0 is gone.
    pub fn leave(&self, error: &Error) -> bool {
        if self.rank > 0 {
            let gone = self.listen(&self.lines[0]).is_err();
            let told = self.told.load(Ordering::Relaxed);
            if gone || told {
                return !told && self.rank == 1;
            }
        }
        let text = error.to_string();
        let text = &text.as_bytes()[..text.len().min(LONGEST)];
        // Whoever does not hear it has gone.
        let tell = |line: &Line| (&line.stream).write_all(&[&(text.len() as u32).to_le_bytes(), text].concat());
        self.lines.iter().for_each(|line| drop(tell(line)));
        self.rank == 0
    }

    /// Process 0 ends a wait first, because it knows for whom all wait.
    fn limit(&self) -> Duration {
        self.patience.most * if self.rank == 0 { 1 } else { 2 }
    }

    /// A message is the length of an error's text and that text, or 0 and the bytes, whose number both sides know.
    fn send(&self, line: &Line, bytes: &[u8]) -> Result<()> {
        let sent = (&line.stream).write_all(&[&[0; 4], bytes].concat());
        // An error that was told before is the reason.
        sent.or_else(|_| self.listen(line).and_then(|()| Err(gone(line.peer))))
    }

    fn read(&self, line: &Line, bytes: &mut [u8]) -> Result<()> {
        let (since, mut length) = (Instant::now(), [0; 4]);
        self.fill(line, &mut length, since)?;
        match u32::from_le_bytes(length) {
            0 => self.fill(line, bytes, since),
            length => Err(self.error(line, length)),
        }
    }

    /// The error of the other process, whose text has this length.
    fn error(&self, line: &Line, length: u32) -> Error {
        self.told.store(true, Ordering::Relaxed);
        let mut text = vec![0; (length as usize).min(LONGEST)];
        match self.fill(line, &mut text, Instant::now()) {
            Ok(()) => Error::new(String::from_utf8_lossy(&text)).at(format_args!("process {}", line.peer)),
            Err(gone) => gone,
        }
    }

    /// Reads all these bytes.
    fn fill(&self, line: &Line, bytes: &mut [u8], since: Instant) -> Result<()> {
        let (mut at, mut late) = (0, false);
        while at < bytes.len() {
            match (&line.stream).read(&mut bytes[at..]) {
                Ok(0) => return Err(gone(line.peer)),
                Ok(n) => at += n,
                Err(e) if is_early(&e) => {
                    let (waited, peer) = (since.elapsed(), line.peer);
                    if waited > self.limit() {
                        return Err(Error::new(format!("process {peer} has not answered for {} s", waited.as_secs())));
                    }
                    if waited > self.patience.quiet && !late {
                        (self.patience.tell)(&format!("waiting for process {peer}"));
                        late = true;
                    }
                    self.lines.iter().filter(|other| other.peer != peer).try_for_each(|other| self.listen(other))?;
                }
                Err(_) => return Err(gone(line.peer)),
            }
        }
        Ok(())
    }

    /// Looks, without waiting, whether the other process is gone or tells an error.
    fn listen(&self, line: &Line) -> Result<()> {
        let (stream, mut length) = (&line.stream, [0; 4]);
        let seen = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut length));
        stream.set_nonblocking(false).map_err(|_| gone(line.peer))?;
        match seen {
            Ok(0) => Err(gone(line.peer)),
            Ok(4) if length != [0; 4] => {
                self.fill(line, &mut length, Instant::now())?;
                Err(self.error(line, u32::from_le_bytes(length)))
            }
            Err(e) if !is_early(&e) => Err(gone(line.peer)),
            _ => Ok(()),
        }
    }
}

fn gone(peer: usize) -> Error {
    Error::new(format!("process {peer} is gone"))
}

/// Whether nothing has come yet.
fn is_early(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// What a process says first: the greeting, the number of processes, its own number.
fn greeting(size: usize, rank: usize) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&GREETING);
    bytes[8..12].copy_from_slice(&(size as u32).to_le_bytes());
    bytes[12..].copy_from_slice(&(rank as u32).to_le_bytes());
    bytes
}

fn line(peer: usize, stream: TcpStream, patience: Patience) -> io::Result<Line> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(patience.most))?;
    Ok(Line { peer, stream })
}

/// The connections of process 0, which opens its port for them.
fn receive(address: &str, size: usize, patience: Patience) -> Result<Vec<Line>> {
    let failed = |e: io::Error| Error::new(format!("process 0 cannot listen at {address}: {e}"));
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let port: u16 = port.ok_or_else(|| Error::usage(format!("{address} is not HOST:PORT")))?;
    // At every address of this machine: the others may know it by another one.
    let listener = TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let mut lines: Vec<Option<Line>> = (1..size).map(|_| None).collect();
    let (since, mut late) = (Instant::now(), false);
    while lines.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, _)) => {
                let Some((theirs, rank)) = greeted(&stream) else { continue };
                if theirs != size {
                    return Err(Error::usage(format!(
                        "process {rank} is one of {theirs}, and process 0 one of {size}"
                    )));
                }
                let place = rank.checked_sub(1).and_then(|i| lines.get_mut(i)).filter(|place| place.is_none());
                let place = place.ok_or_else(|| Error::usage(format!("there is a second process {rank}")))?;
                *place = Some(line(rank, stream, patience).map_err(failed)?);
            }
            Err(e) if is_early(&e) => thread::sleep(TICK / 10),
            Err(e) => return Err(failed(e)),
        }
        let missing = || {
            let missing = (1..size).filter(|rank| lines[rank - 1].is_none()).map(|rank| rank.to_string());
            missing.collect::<Vec<_>>().join(", ")
        };
        if since.elapsed() > patience.most && lines.iter().any(Option::is_none) {
            let (who, long) = (missing(), patience.most.as_secs());
            return Err(Error::new(format!("process {who} of {size} has not come to {address} in {long} s")));
        }
        if since.elapsed() > patience.quiet && !late {
            (patience.tell)(&format!("waiting at {address} for process {}", missing()));
            late = true;
        }
    }
    Ok(lines.into_iter().flatten().collect())
}

/// The number of processes and the number of the one that has called; `None` for a stranger.
fn greeted(mut stream: &TcpStream) -> Option<(usize, usize)> {
    let mut said = [0; 16];
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.read_exact(&mut said).ok()?;
    let number = |at: usize| u32::from_le_bytes([said[at], said[at + 1], said[at + 2], said[at + 3]]) as usize;
    (said[..8] == GREETING).then(|| (number(8), number(12)))
}

/// The connection of another process to number 0, which may begin later.
fn call(address: &str, rank: usize, size: usize, patience: Patience) -> Result<Line> {
    let since = Instant::now();
    let connect = |to: SocketAddr| {
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        // A port that nobody listens at may be given to this very connection.
        let itself = stream.local_addr()? == stream.peer_addr()?;
        if itself { Err(io::Error::from(ErrorKind::ConnectionRefused)) } else { Ok(stream) }
    };
    loop {
        let addresses = address.to_socket_addrs();
        let tried = addresses.and_then(|mut all| {
            all.find_map(|to| connect(to).ok()).ok_or_else(|| io::Error::from(ErrorKind::ConnectionRefused))
        });
        let greeted = tried.and_then(|mut stream| stream.write_all(&greeting(size, rank)).map(|()| stream));
        match greeted.and_then(|stream| line(0, stream, patience)) {
            Ok(line) => return Ok(line),
            Err(e) if since.elapsed() > patience.most => {
                return Err(Error::new(format!("process {rank} cannot reach process 0 at {address}: {e}")));
            }
            Err(_) => thread::sleep(TICK),
        }
    }
}
