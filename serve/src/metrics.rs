use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Requests to one path with one status.
#[derive(Debug, Default)]
struct Tally {
    count: u64,
    seconds: f64,
}

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Metrics {
    /// By path and status.
    requests: Mutex<BTreeMap<(&'static str, u16), Tally>>,
    /// Tokens of prompts.
    pub tokens_in: AtomicU64,
    /// Tokens drawn.
    pub tokens_out: AtomicU64,
    /// Batches of scored blocks.
    pub batches: AtomicU64,
    /// Blocks scored, each with one inference if the model infers latents.
    pub blocks: AtomicU64,
}

impl Metrics {
    /// Counts a request.
    pub fn count(&self, path: &'static str, status: u16, time: Duration) {
        let mut requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let tally = requests.entry((path, status)).or_default();
        tally.count += 1;
        tally.seconds += time.as_secs_f64();
    }

    /// The text that Prometheus reads; `queue` requests run or wait.
    pub fn text(&self, queue: usize) -> String {
        let mut text = String::new();
        let requests = self.requests.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        text.push_str("# TYPE ltm_requests_total counter\n");
        for ((path, status), Tally { count, .. }) in requests.iter() {
            _ = writeln!(text, "ltm_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}");
        }
        text.push_str("# TYPE ltm_request_seconds_total counter\n");
        for ((path, status), Tally { seconds, .. }) in requests.iter() {
            _ = writeln!(text, "ltm_request_seconds_total{{path=\"{path}\",status=\"{status}\"}} {seconds}");
        }
        let counters = [
            ("prompt_tokens", &self.tokens_in),
            ("completion_tokens", &self.tokens_out),
            ("score_batches", &self.batches),
            ("score_blocks", &self.blocks),
        ];
        for (name, value) in counters {
            _ = writeln!(text, "# TYPE ltm_{name}_total counter\nltm_{name}_total {}", value.load(Relaxed));
        }
        _ = writeln!(text, "# TYPE ltm_queue gauge\nltm_queue {queue}");
        text
    }
}
