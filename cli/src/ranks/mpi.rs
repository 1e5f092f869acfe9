//! Processes on the CPU, by MPI.

use super::PATIENCE;
use crate::output::{be_quiet, note};
use engine::collective::{on_host, sum_by};
use engine::{Alone, Buffer, Collective, Error, ErrorKind, Result};
use mpi::Threading;
use mpi::point_to_point::send_receive_into;
use mpi::topology::{Process, SimpleCommunicator};
use mpi::traits::{Communicator, Destination, Root, Source};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{panic, thread};

/// Time for process 0 to report an error that all processes have, before another one ends them.
const FIRST: Duration = Duration::from_secs(3);

/// Most numbers of a message: MPI counts in 32 bits.
const MOST: usize = 1 << 28;

/// The processes that mpirun or srun started.
#[derive(Debug)]
struct Mpi {
    rank: usize,
    size: usize,
}

fn process(world: &SimpleCommunicator, rank: usize) -> Process<'_> {
    world.process_at_rank(rank as i32)
}

impl Collective for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    // A failure of MPI ends all processes: it is told so in `among`.
    fn sum(&self, xs: &mut [&mut Buffer]) -> Result<()> {
        let world = SimpleCommunicator::world();
        sum_by(self, xs, |peer, send, receive| {
            let longest = send.len().max(receive.len());
            // Both sides cut in the same places, although they may differ by one number.
            for start in (0..longest.max(1)).step_by(MOST) {
                let [ours, theirs] = [send.len(), receive.len()].map(|len| start.min(len)..(start + MOST).min(len));
                let peer = process(&world, peer);
                send_receive_into(&send[ours], &peer, &mut receive[theirs], &peer);
            }
            Ok(())
        })
    }

    fn broadcast(&self, x: &mut Buffer) -> Result<()> {
        let world = SimpleCommunicator::world();
        on_host(x, |x| {
            x.chunks_mut(MOST).for_each(|x| process(&world, 0).broadcast_into(x));
            Ok(())
        })
    }

    /// Through process 0, which can tell who is late.
    fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        let (world, mut all) = (SimpleCommunicator::world(), vec![0; self.size * own.len()]);
        if self.rank > 0 {
            process(&world, 0).send(own);
        } else {
            all[..own.len()].copy_from_slice(own);
            let since = Instant::now();
            for (rank, theirs) in all.chunks_mut(own.len()).enumerate().skip(1) {
                let mut told = false;
                while process(&world, rank).immediate_probe().is_none() {
                    if since.elapsed() < Duration::from_millis(1) {
                        thread::yield_now();
                    } else {
                        thread::sleep(Duration::from_micros(50));
                    }
                    if since.elapsed() > PATIENCE.quiet && !told {
                        note(format_args!("waiting for process {rank}"));
                        told = true;
                    }
                }
                process(&world, rank).receive_into(theirs);
            }
        }
        process(&world, 0).broadcast_into(&mut all[..]);
        Ok(all)
    }
}

/// See [`among`](super::among).
pub fn among(
    (name, expected): (&str, usize),
    work: impl FnOnce(Arc<dyn Collective>) -> Result<ExitCode>,
) -> Result<ExitCode> {
    // One thread of the pool makes all calls after the first.
    let Some((universe, Threading::Serialized | Threading::Multiple)) =
        mpi::initialize_with_threading(Threading::Serialized)
    else {
        return Err(Error::new("the MPI library does not support calls from the threads of a pool"));
    };
    let world = SimpleCommunicator::world();
    let (rank, size) = (world.rank() as usize, world.size() as usize);
    if expected != size {
        return Err(Error::usage(format!(
            "{name} = {expected}, but MPI knows {size} processes: start the program by the mpirun of the MPI library that it \
             was built with"
        )));
    }
    if size == 1 {
        return work(Arc::new(Alone));
    }
    // Ending MPI in an orderly way waits for processes that wait for this one.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        usual(panic);
        SimpleCommunicator::world().abort(101);
    }));
    if rank > 0 {
        be_quiet();
    }
    let done = work(Arc::new(Mpi { rank, size }));
    if let Err(error) = &done {
        if rank > 0 {
            thread::sleep(FIRST);
            eprintln!("error: process {rank}: {error}");
        } else {
            note(format_args!("error: {error}"));
        }
        world.abort(if error.kind == ErrorKind::Usage { 2 } else { 1 });
    }
    drop(universe);
    done
}
