//! The one worker that owns the models: it takes jobs, scores blocks of many requests in one batch, and writes texts one by one.

use crate::fault::Fault;
use crate::metrics::Metrics;
use crate::model::{Model, ROWS};
use crate::request::Completion;
use axum::http::StatusCode;
use engine::{Error, Result};
use ltm::evaluate::{Block, Prediction, blocks};
use ltm::generate::{Order, Sampler, TextStream};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::Receiver;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// The log-probability of a token, and the likeliest tokens with theirs.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Of the token itself.
    pub log_p: f64,
    /// The likeliest first.
    pub top: Vec<(u16, f64)>,
}

impl Scored {
    /// Of a `token`, with `count` of the likeliest, by the logarithms of all probabilities.
    fn new(log_ps: &[f64], token: u16, count: usize) -> Self {
        let mut order: Vec<usize> = (0..log_ps.len()).collect();
        let by = |a: &usize, b: &usize| log_ps[*b].total_cmp(&log_ps[*a]).then(a.cmp(b));
        if count < order.len() {
            order.select_nth_unstable_by(count, by);
            order.truncate(count);
        }
        order.sort_unstable_by(by);
        let top = order.into_iter().map(|id| (id as u16, log_ps[id])).collect();
        Self { log_p: log_ps[usize::from(token)], top }
    }
}

/// The tokens that one posterior predicts.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Their places in the text.
    pub places: Range<usize>,
    /// The KL of every latent vector, in nats, the first layer's first.
    pub kl: Vec<f64>,
}

/// Why a text ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// By an end token or a stop text.
    Stop,
    /// By the number of its tokens.
    Length,
}

/// A step on the way to an answer.
#[derive(Clone, Debug)]
pub enum Event {
    /// The tokens of a prompt from the second on, those that were put before it included.
    Scored { prompt: usize, places: Vec<Scored>, fits: Vec<Fitted> },
    /// A token was drawn; `text` is what can be shown now.
    Token { choice: usize, token: u16, text: String, scored: Option<Scored> },
    /// A choice is complete; `text` is the rest of it, `kl` that of every latent vector that was inferred for it.
    End { choice: usize, text: String, finish: Finish, kl: Vec<f64> },
    /// All are.
    Done,
}

/// A request on its way through the worker.
pub struct Job {
    /// What is asked.
    pub ask: Arc<Completion>,
    /// Set when nobody waits for the answer any more.
    pub gone: Arc<AtomicBool>,
    /// When it is given up.
    pub deadline: Instant,
    /// Where the answer goes. It holds no more events than the request has tokens, and sending never waits.
    pub answer: UnboundedSender<std::result::Result<Event, Fault>>,
    /// Its place in the queue, which is free again when the work is done, whoever reads the answer.
    pub _place: OwnedSemaphorePermit,
}

/// A job under way.
struct Task {
    job: Job,
    /// Blocks that are not yet scored: prompt and places.
    blocks: VecDeque<(usize, Range<usize>)>,
    /// What is known of the places of each prompt.
    places: Vec<BTreeMap<usize, Scored>>,
    /// Posteriors of each prompt.
    fits: Vec<Vec<Fitted>>,
    /// The logarithms of the probabilities of the token after each prompt, if it is drawn from them.
    next: Vec<Option<Vec<f64>>>,
    /// Choices written.
    written: usize,
}

impl Task {
    fn new(job: Job, refit: usize) -> Self {
        let ask = &job.ask;
        let count = ask.prompts.len();
        let mut parts = VecDeque::new();
        for (number, prompt) in ask.prompts.iter().enumerate().filter(|_| ask.scores()) {
            // A single token is drawn from the distribution that scores the prompt.
            let end = prompt.tokens.len() + usize::from(ask.max_tokens == 1);
            parts.extend(blocks(end, refit, prompt.context).into_iter().map(|places| (number, places)));
        }
        Self {
            places: vec![BTreeMap::new(); count],
            fits: vec![Vec::new(); count],
            next: vec![None; count],
            blocks: parts,
            written: 0,
            job,
        }
    }

    fn send(&self, event: Event) {
        // A reader that has gone away also sets the flag.
        _ = self.job.answer.send(Ok(event));
    }

    fn fail(&self, fault: Fault) {
        self.job.gone.store(true, Relaxed);
        _ = self.job.answer.send(Err(fault));
    }

    fn is_gone(&self) -> bool {
        self.job.gone.load(Relaxed)
    }

    /// Takes what is known of the token at one place.
    fn learn(&mut self, prompt: usize, place: usize, seen: &Prediction) {
        let ask = &self.job.ask;
        let scored = match (ask.prompts[prompt].tokens.get(place), ask.logprobs) {
            (None, _) => {
                self.next[prompt] = Some(log_ps(seen));
                return;
            }
            // Without the likeliest tokens only one probability is needed.
            (Some(&token), None | Some(0)) => Scored { log_p: seen.log_p(token), top: Vec::new() },
            (Some(&token), Some(count)) => Scored::new(&log_ps(seen), token, count),
        };
        self.places[prompt].insert(place, scored);
    }
}

/// The worker.
pub struct Worker {
    models: Vec<Model>,
    tasks: VecDeque<Task>,
    metrics: Arc<Metrics>,
    /// Set when all work is to end.
    closing: Arc<AtomicBool>,
}

impl Worker {
    /// A worker with these models.
    pub fn new(models: Vec<Model>, metrics: Arc<Metrics>, closing: Arc<AtomicBool>) -> Self {
        Self { models, tasks: VecDeque::new(), metrics, closing }
    }

    /// Works until nobody can send jobs any more.
    pub fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            if self.tasks.is_empty() {
                let Ok(job) = jobs.recv() else { return };
                self.take(job);
            }
            while let Ok(job) = jobs.try_recv() {
                self.take(job);
            }
            self.drop_gone();
            self.score();
            self.write();
        }
    }

    fn take(&mut self, job: Job) {
        let refit = self.models[job.ask.model].refit;
        self.tasks.push_back(Task::new(job, refit));
    }

    fn drop_gone(&mut self) {
        let closing = self.closing.load(Relaxed);
        self.tasks.retain(|task| {
            if let Err(fault) = over(&task.job, closing) {
                task.fail(fault);
            }
            !task.is_gone()
        });
    }

    /// Scores one batch of blocks of one length class, of all requests to the model of the oldest.
    fn score(&mut self) {
        let Some(first) = self.tasks.iter().find(|task| !task.blocks.is_empty()) else { return };
        let number = first.job.ask.model;
        let model = &mut self.models[number];
        let class = model.class(&first.blocks[0].1);
        let mut chosen = Vec::new();
        for (at, task) in self.tasks.iter_mut().enumerate().filter(|(_, task)| task.job.ask.model == number) {
            let fits = |(_, places): &(usize, Range<usize>)| model.class(places) == class;
            while let Some(i) = task.blocks.iter().position(fits).filter(|_| chosen.len() < ROWS) {
                chosen.extend(task.blocks.remove(i).map(|(prompt, places)| (at, prompt, places)));
            }
        }
        let asks: Vec<Arc<Completion>> = chosen.iter().map(|(at, ..)| self.tasks[*at].job.ask.clone()).collect();
        let texts = chosen.iter().zip(&asks).map(|((_, prompt, _), ask)| &ask.prompts[*prompt].tokens[..]);
        let row = |((_, _, places), text): (&(usize, usize, Range<usize>), _)| Block { text, places: places.clone() };
        let rows: Vec<Block<'_>> = chosen.iter().zip(texts).map(row).collect();
        let tasks = &mut self.tasks;
        let result = model.predict(&rows, |row, place, seen| {
            let (at, prompt, _) = chosen[row];
            tasks[at].learn(prompt, place, seen);
        });
        self.metrics.batches.fetch_add(1, Relaxed);
        self.metrics.blocks.fetch_add(rows.len() as u64, Relaxed);
        let kl = result.as_ref().map_or(&[][..], |kl| kl);
        for ((at, prompt, places), kl) in chosen.iter().zip(kl) {
            self.tasks[*at].fits[*prompt].push(Fitted { places: places.clone(), kl: kl.clone() });
        }
        for (at, prompt, _) in chosen {
            let task = &mut self.tasks[at];
            match &result {
                Err(error) => task.fail(internal(error)),
                Ok(_) if task.blocks.iter().any(|(other, _)| *other == prompt) => {}
                Ok(_) => {
                    let places = std::mem::take(&mut task.places[prompt]);
                    let mut fits = std::mem::take(&mut task.fits[prompt]);
                    fits.sort_by_key(|fit| fit.places.start);
                    if !places.is_empty() {
                        task.send(Event::Scored { prompt, places: places.into_values().collect(), fits });
                    }
                }
            }
        }
    }

    /// Writes one choice of the oldest request that has nothing left to score.
    fn write(&mut self) {
        let is_ready = |task: &Task| task.blocks.is_empty() && !task.is_gone();
        let Some(mut task) = self.tasks.iter().position(is_ready).and_then(|at| self.tasks.remove(at)) else { return };
        let (choice, closing) = (task.written, &self.closing);
        match write(&mut self.models[task.job.ask.model], &task, choice, closing, &self.metrics) {
            Ok((text, finish, kl)) => task.send(Event::End { choice, text, finish, kl }),
            Err(error) => {
                // It failed because nobody wants it, or by itself.
                let fault = over(&task.job, closing.load(Relaxed)).err().unwrap_or_else(|| internal(&error));
                return task.fail(fault);
            }
        }
        task.written += 1;
        if task.written < task.job.ask.prompts.len() * task.job.ask.n {
            self.tasks.push_back(task);
        } else {
            task.send(Event::Done);
        }
    }
}

/// The fault of a job that is not to go on.
fn over(job: &Job, closing: bool) -> std::result::Result<(), Fault> {
    let unavailable = |message: &str| Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, message));
    match () {
        () if job.gone.load(Relaxed) => unavailable("the client has gone"),
        () if closing => unavailable("the server is stopping"),
        () if Instant::now() > job.deadline => {
            Err(Fault::new(StatusCode::GATEWAY_TIMEOUT, "the request took longer than the server's limit"))
        }
        () => Ok(()),
    }
}

fn internal(error: &Error) -> Fault {
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn log_ps(seen: &Prediction) -> Vec<f64> {
    (0..seen.vocab()).map(|token| seen.log_p(token as u16)).collect()
}

/// The logarithms of the probabilities by `logits`.
fn log_softmax(logits: &[f64]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = most + logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln();
    logits.iter().map(|logit| logit - lse).collect()
}

/// Writes a choice, sending its tokens; returns the rest of its text, why it ends, and the KL of every latent vector that was inferred.
fn write(
    model: &mut Model,
    task: &Task,
    choice: usize,
    closing: &AtomicBool,
    metrics: &Metrics,
) -> Result<(String, Finish, Vec<f64>)> {
    let ask = &task.job.ask;
    let number = choice / ask.n;
    let (prompt, sample) = (&ask.prompts[number], (choice % ask.n) as u32);
    let tokenizer = model.facts.tokenizer.clone();
    let (end, ids, front) = (tokenizer.end(), tokenizer.vocab(), model.facts.front.len());
    let mut stream = TextStream::new(&ask.writing.stop);
    let mut finish = Finish::Length;
    let mut each = |token: u16, logits: Option<&[f64]>| {
        let (mut text, stopped) = match token == end {
            true => (String::new(), true),
            false => stream.push(tokenizer.token_bytes(token).unwrap_or_default()),
        };
        if stopped {
            finish = Finish::Stop;
            text.push_str(&stream.finish());
        }
        let scored = ask.logprobs.zip(logits).map(|(count, logits)| Scored::new(&log_softmax(logits), token, count));
        metrics.tokens_out.fetch_add(1, Relaxed);
        task.send(Event::Token { choice, token, text, scored });
        Ok(!stopped)
    };
    let mut kl = Vec::new();
    if let Some(log_ps) = &task.next[number] {
        let token = Sampler::new(&ask.writing, sample)?.next(&log_ps[..ids], &prompt.tokens)?;
        each(token, Some(log_ps))?;
    } else if ask.max_tokens > 0 {
        let order = Order {
            before: &prompt.tokens,
            front,
            after: &ask.suffix,
            tokens: ask.max_tokens,
            ids,
            writing: &ask.writing,
            sample,
        };
        let check = || over(&task.job, closing.load(Relaxed)).map_err(|fault| Error::new(fault.message));
        kl = model.tell(&order, &check, &mut each)?;
    }
    Ok((stream.finish(), finish, kl))
}
