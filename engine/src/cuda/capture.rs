//! A phase that the driver has captured.

use super::driver::WATCH;
use super::libraries::told;
use super::{Captured, Failure};
use crate::Error;
use cudarc::driver::CudaGraph;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A captured phase; empty if the device had failed.
pub(super) struct Recording {
    pub graph: Option<Mutex<Graph>>,
    pub name: String,
    pub failure: Arc<Failure>,
}

pub(super) struct Graph(pub CudaGraph);

// SAFETY: calls on one graph must not overlap, and the mutex ensures this. Any thread may call, and `CudaGraph` makes
// its context current for each call.
unsafe impl Send for Graph {}

impl Captured for Recording {
    fn launch(&self) {
        let (Some(graph), Ok(())) = (&self.graph, self.failure.check()) else { return };
        let graph = graph.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |e| Error::new(format!("{} cannot run a captured phase: {e} ({WATCH})", self.name));
        let _ = self.failure.keep(told(graph.0.launch()).map_err(failed));
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recording")
    }
}
