//! An OpenAI-compatible server: completions with honest log-probabilities, from trained models.
//!
//! HTTP runs on threads of its own, which only parse and wait. One worker owns the models. It takes requests from a queue, scores blocks
//! of many requests in one batch, and writes texts one by one. No number depends on who else asks.

#![forbid(unsafe_code)]

mod answer;
mod facts;
mod fault;
mod http;
mod listener;
mod metrics;
mod model;
mod request;
mod worker;

pub use facts::{Facts, Latent, Scoring};
pub use model::Model;

use engine::{Error, Result};
use metrics::Metrics;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use worker::Worker;

/// What the server permits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Requests that run or wait.
    pub queue: usize,
    /// Most tokens to draw for a choice.
    pub tokens: usize,
    /// The time of a request, waiting included.
    pub time: Duration,
    /// The key that requests must have.
    pub key: Option<String>,
}

/// A server that listens, but does not answer yet.
pub struct Server {
    listener: TcpListener,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Listens at `address`; port 0 is a free one.
    ///
    /// # Errors
    /// If the address is not this machine's, or in use.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let fail = |error| Error::new(format!("cannot listen at {address}: {error}"));
        let listener = TcpListener::bind(address).map_err(fail)?;
        listener.set_nonblocking(true).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address })
    }

    /// Answers requests until the process is asked to end. The models work on this thread.
    ///
    /// # Errors
    /// If the system gives no threads or signals.
    pub fn run(self, models: Vec<Model>, limits: Limits) -> Result<()> {
        let (metrics, closing) = (Arc::new(Metrics::default()), Arc::new(AtomicBool::new(false)));
        let facts = models.iter().map(|model| model.facts.clone()).collect();
        let (sender, jobs) = std::sync::mpsc::channel();
        let fail = |error| Error::new(format!("cannot serve: {error}"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("http")
            .enable_all()
            .build()
            .map_err(fail)?;
        let loopback = self.address.ip().is_loopback();
        let app = http::App::new(facts, sender, metrics.clone(), limits, loopback);
        let http = runtime.spawn(http::serve(self.listener, app, closing.clone()));
        // It ends when the last handler has gone and with it the last sender of jobs.
        Worker::new(models, metrics, closing).run(&jobs);
        runtime.block_on(http).map_err(|error| Error::new(format!("the server failed: {error}")))?.map_err(fail)
    }
}
