//! The processes of a computation as threads of one process.

use engine::collective::{on_host, sum_by};
use engine::{Buffer, Collective, Error, Result};
use std::fmt::Debug;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// One of the threads: its number, and a channel to and from each.
#[derive(Debug)]
struct Thread {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Mutex<Receiver<Vec<u8>>>>,
}

impl Thread {
    fn send(&self, peer: usize, bytes: &[u8]) -> Result<()> {
        self.to[peer].send(bytes.to_vec()).map_err(|_| Error::new(format!("thread {peer} is gone")))
    }

    fn receive(&self, peer: usize) -> Result<Vec<u8>> {
        let from = self.from[peer].lock().expect("a thread that did not panic");
        from.recv().map_err(|_| Error::new(format!("thread {peer} is gone")))
    }
}

impl Collective for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn sum(&self, xs: &mut [&mut Buffer]) -> Result<()> {
        sum_by(self, xs, |peer, send, receive| {
            self.send(peer, bytemuck::cast_slice(send))?;
            bytemuck::cast_slice_mut(receive).copy_from_slice(&self.receive(peer)?);
            Ok(())
        })
    }

    fn broadcast(&self, x: &mut Buffer) -> Result<()> {
        on_host(x, |x| {
            if self.rank > 0 {
                bytemuck::cast_slice_mut(x).copy_from_slice(&self.receive(0)?);
                return Ok(());
            }
            (1..self.size()).try_for_each(|peer| self.send(peer, bytemuck::cast_slice(x)))
        })
    }

    fn gather(&self, own: &[u64]) -> Result<Vec<u64>> {
        (0..self.size()).try_for_each(|peer| self.send(peer, bytemuck::cast_slice(own)))?;
        let mut all = Vec::new();
        for peer in 0..self.size() {
            all.extend(self.receive(peer)?.chunks(8).map(|b| u64::from_le_bytes(b.try_into().expect("8 bytes"))));
        }
        Ok(all)
    }
}

/// What `work` returns on each of `size` threads, which are the processes of one computation.
pub fn together<T: Send>(size: usize, work: impl Fn(Arc<dyn Collective>) -> T + Sync) -> Vec<T> {
    let pairs: Vec<_> = (0..size * size).map(|_| channel()).collect();
    let (to, from): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
    let mut from: Vec<_> = from.into_iter().map(|from| Some(Mutex::new(from))).collect();
    let threads: Vec<Thread> = (0..size)
        .map(|rank| Thread {
            rank,
            to: to[rank * size..][..size].to_vec(),
            from: (0..size).map(|peer| from[peer * size + rank].take().expect("taken once")).collect(),
        })
        .collect();
    drop(to);
    std::thread::scope(|scope| {
        let work = &work;
        let running: Vec<_> = threads.into_iter().map(|thread| scope.spawn(move || work(Arc::new(thread)))).collect();
        running.into_iter().map(|thread| thread.join().expect("a thread without a panic")).collect()
    })
}
