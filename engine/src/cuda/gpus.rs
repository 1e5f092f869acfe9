//! Processes with a GPU each, as a [`Collective`].

use super::nccl::{Library, Nccl};
use super::{Module, Settings};
use crate::meeting::Meeting;
use crate::{Buffer, Collective, Error, Patience, Result};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// The kernel that adds what another process has sent.
pub static EXCHANGE: Module = Module::new("exchange", include_str!("exchange.cu"));

/// How long a process that sees an error of NCCL waits for news of its cause.
const CAUSE: Duration = Duration::from_secs(1);

/// The most buffers whose sums are computed at once: NCCL takes up to 2048 messages in a group.
const AT_ONCE: usize = 512;

/// The processes of a computation, each with a GPU of its own: buffers go from GPU to GPU by NCCL, the few numbers of
/// [`gather`](Collective::gather) by TCP, which also tells who is late or gone. A GPU's kernel of [`EXCHANGE`] must be loaded.
///
/// Messages are neither encrypted nor authenticated.
#[derive(Debug)]
pub struct Gpus {
    meeting: Meeting,
    library: Library,
    /// Made for the GPU of the first buffer.
    nccl: Mutex<Option<Nccl>>,
}

impl Gpus {
    /// Meets the other processes: as number `rank` of `size`, at `address`, `HOST:PORT` of process 0.
    ///
    /// # Errors
    /// If NCCL is missing or too old, or a process does not come.
    pub fn meet(settings: &Settings, address: &str, rank: usize, size: usize, patience: Patience) -> Result<Self> {
        let library = Library::load(settings)?;
        Ok(Self { meeting: Meeting::at(address, rank, size, patience)?, library, nccl: Mutex::default() })
    }

    /// Ends the work together. After an error the others are told. Returns whether this process is to report the error, because
    /// one does it for all.
    pub fn leave(&self, error: Option<&Error>) -> bool {
        let Some(error) = error else {
            // Who leaves early would seem to be gone.
            return self.meeting.gather(&[0]).is_err_and(|error| self.leave(Some(&error)));
        };
        let reports = self.meeting.leave(error);
        // The usual end would wait for the others.
        self.nccl.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Nccl::give_up);
        reports
    }

    /// Does `work` with the communicator of the GPU that holds `x`.
    fn by_nccl(&self, x: &Buffer, work: impl FnOnce(&mut Nccl, Watch) -> Result<()>) -> Result<()> {
        let watch: Watch = &|waited| self.meeting.check(waited);
        let mut nccl = self.nccl.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let nccl = match &mut *nccl {
                Some(nccl) => nccl,
                none => none.insert(self.join(x, watch)?),
            };
            work(nccl, watch)
        };
        run().map_err(|error| self.cause().unwrap_or(error))
    }

    fn join(&self, x: &Buffer, watch: Watch) -> Result<Nccl> {
        let gpu = x.gpu().ok_or_else(|| Error::usage("NCCL needs numbers of a GPU, and these are the CPU's"))?;
        let mut id = if self.meeting.rank == 0 { self.library.id()? } else { [0; 128] };
        self.meeting.broadcast(&mut id)?;
        Nccl::join(&self.library, gpu.clone(), self.meeting.rank, self.meeting.size, id, watch)
    }

    /// Why another process does not answer, if that is known soon.
    fn cause(&self) -> Option<Error> {
        (0..20).find_map(|_| {
            thread::sleep(CAUSE / 20);
            self.meeting.check(Duration::ZERO).err()
        })
    }
}

/// Called about ten times a second while a process waits, with the time that it has waited. An error ends the wait.
pub(super) type Watch<'a> = &'a dyn Fn(Duration) -> Result<()>;

impl Collective for Gpus {
    fn rank(&self) -> usize {
        self.meeting.rank
    }

    fn size(&self) -> usize {
        self.meeting.size
    }

    fn sum(&self, xs: &mut [&mut Buffer]) -> Result<()> {
        let Some(first) = xs.first() else { return Ok(()) };
        self.by_nccl(first, |nccl, watch| {
            xs.chunks(AT_ONCE).try_for_each(|xs| nccl.sum(xs, self.rank(), self.size(), watch))
        })
    }

    fn broadcast(&self, x: &mut Buffer) -> Result<()> {
        self.by_nccl(x, |nccl, watch| nccl.broadcast(x, watch))
    }

    fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        self.meeting.gather(own)
    }
}
