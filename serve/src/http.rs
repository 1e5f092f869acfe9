//! Routes, handlers and the end of the server.

use crate::Limits;
use crate::answer::{Answer, Choice};
use crate::facts::Facts;
use crate::fault::{Fault, reply};
use crate::listener;
use crate::metrics::Metrics;
use crate::request::{Completion, Fields};
use crate::worker::{Event, Job};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::json;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;

/// Most bytes of a request's body.
const BODY: usize = 1 << 20;
/// The time for it.
const READ: Duration = Duration::from_secs(30);
/// The time that requests have to end when the server is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// The time after it, for answers that are read slowly.
const READING: Duration = Duration::from_secs(3);
/// Connections beside those whose requests run or wait: to hear that the queue is full, and for health and metrics.
const BESIDE: usize = 64;

/// What handlers share.
pub struct App {
    models: Vec<Arc<Facts>>,
    jobs: Sender<Job>,
    /// Free places of the queue.
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    limits: Limits,
    /// Whether only this machine can connect.
    loopback: bool,
    next: AtomicU64,
}

impl App {
    /// The state of a server.
    pub fn new(
        models: Vec<Arc<Facts>>,
        jobs: Sender<Job>,
        metrics: Arc<Metrics>,
        limits: Limits,
        loopback: bool,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits.queue));
        Self { models, jobs, places, metrics, limits, loopback, next: AtomicU64::new(0) }
    }
}

type Answered = Response<Body>;

/// The paths that are counted by name.
const PATHS: [&str; 9] = [
    "/",
    "/v1/completions",
    "/v1/models",
    "/v1/chat/completions",
    "/tokenize",
    "/detokenize",
    "/tokenizer_info",
    "/health",
    "/metrics",
];

/// Serves until the process is asked to end, and then until the requests under way have ended.
pub async fn serve(listener: TcpListener, app: App, closing: Arc<AtomicBool>) -> std::io::Result<()> {
    let connections = app.limits.queue + BESIDE;
    let app = Arc::new(app);
    // Also below a path of each model, for clients that ask for tokens without the model's name.
    let of_model = || {
        Router::new()
            .route("/v1/completions", post(completions))
            .route("/v1/models", get(models))
            .route("/tokenize", post(tokenize))
            .route("/detokenize", post(detokenize))
            .route("/tokenizer_info", get(tokenizer_info))
    };
    let router = of_model()
        .route("/", get(page))
        .nest("/run/{run}", of_model())
        .route("/health", get(async || reply(StatusCode::OK, &json!({"status": "ok"}))))
        .route("/metrics", get(metrics))
        .fallback(missing)
        .method_not_allowed_fallback(async |method: Method| {
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, format!("this path does not take {method}")).response()
        })
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    listener::serve(listener, router, connections, asked_to_end(closing), GRACE + READING).await
}

/// Waits for the first signal. A second one ends the process, and after a time all work is given up.
async fn asked_to_end(closing: Arc<AtomicBool>) {
    signal().await;
    tokio::spawn(async {
        signal().await;
        std::process::exit(130);
    });
    tokio::spawn(async move {
        tokio::time::sleep(GRACE).await;
        closing.store(true, Relaxed);
    });
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    _ = tokio::signal::ctrl_c().await;
}

/// Checks who asks, and counts the request.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Answered {
    let started = Instant::now();
    let path = request.uri().path();
    let of_model = path.strip_prefix("/run/").and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    let path = PATHS.into_iter().find(|known| *known == of_model.unwrap_or(path)).unwrap_or("other");
    let response = match admitted(&app, request.headers(), path) {
        Ok(()) => next.run(request).await,
        Err(fault) => fault.response(),
    };
    app.metrics.count(path, response.status().as_u16(), started.elapsed());
    response
}

fn admitted(app: &App, headers: &HeaderMap, path: &str) -> Result<(), Fault> {
    // A page in a browser can reach this machine's ports by a name of its own.
    if app.loopback && !headers.get(header::HOST).is_none_or(is_local) {
        let message = "the Host header must be localhost or a loopback address";
        return Err(Fault::new(StatusCode::FORBIDDEN, message));
    }
    // The page has no secrets, and asks for the key.
    let is_open = matches!(path, "/" | "/health");
    let Some(key) = app.limits.key.as_ref().filter(|_| !is_open) else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    if same(given, format!("Bearer {key}").as_bytes()) {
        return Ok(());
    }
    Err(Fault::new(StatusCode::UNAUTHORIZED, "the key is missing or wrong: send it as Authorization: Bearer KEY"))
}

fn is_local(host: &HeaderValue) -> bool {
    let host = host.to_str().unwrap_or_default();
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    if !(port.is_empty() || port.starts_with(':')) {
        return false;
    }
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

async fn missing(request: Request) -> Answered {
    let message = match request.uri().path() {
        "/v1/chat/completions" => "this model has no chat template; use /v1/completions".into(),
        path => format!("there is no {path}"),
    };
    Fault::new(StatusCode::NOT_FOUND, message).response()
}

/// The model in the path, if there is one.
type Of = Option<Path<String>>;

/// The fields of the body, if it is not too large.
async fn fields(of: Of, request: Request) -> Result<Fields, Fault> {
    let large = || Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body must be at most {BODY} bytes"));
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > BODY) {
        return Err(large());
    }
    let late = |_| Fault::new(StatusCode::REQUEST_TIMEOUT, format!("the body must come within {} s", READ.as_secs()));
    let body = timeout(READ, to_bytes(request.into_body(), BODY)).await.map_err(late)?.map_err(|_| large())?;
    Fields::read(&body, of.map(|Path(name)| name))
}

fn answered(result: Result<impl Serialize, Fault>) -> Answered {
    match result {
        Ok(body) => reply(StatusCode::OK, &body),
        Err(fault) => fault.response(),
    }
}

/// The page for people. A browser lets it ask this server alone.
async fn page() -> Answered {
    let mut response = Response::new(Body::from(include_str!("page.html")));
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response
}

async fn models(State(app): State<Arc<App>>, of: Of) -> Answered {
    let of = of.map(|Path(name)| name);
    if let Err(fault) = Fields::none(of.clone()).model(&app.models) {
        return fault.response();
    }
    let model = |facts: &Arc<Facts>| {
        json!({
            "id": facts.name, "object": "model", "created": 0, "owned_by": "ltm", "kind": facts.kind,
            "max_model_len": facts.sequence, "system_fingerprint": facts.scoring.fingerprint(), "ltm": facts.scoring,
            "latents": facts.latents,
        })
    };
    let is_asked = |facts: &&Arc<Facts>| of.as_ref().is_none_or(|of| *of == facts.name);
    let models: Vec<_> = app.models.iter().filter(is_asked).map(model).collect();
    reply(StatusCode::OK, &json!({"object": "list", "data": models}))
}

async fn metrics(State(app): State<Arc<App>>) -> Answered {
    let queue = app.limits.queue - app.places.available_permits();
    let mut response = Response::new(Body::from(app.metrics.text(queue)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn tokenizer_info(State(app): State<Arc<App>>, of: Of) -> Answered {
    let info = || {
        let fields = Fields::none(of.map(|Path(name)| name));
        let facts = fields.tokenizer(&app.models)?;
        let [(_, end), (_, front)] = facts.specials();
        let tokenizer = &facts.tokenizer;
        Ok(json!({
            "tokenizer_class": tokenizer.name().to_string(), "bos_token": front, "eos_token": end,
            "vocab_size": tokenizer.vocab(), "chat_template": null,
        }))
    };
    answered(info())
}

async fn tokenize(State(app): State<Arc<App>>, of: Of, request: Request) -> Answered {
    let tokens = async {
        let fields = fields(of, request).await?;
        let facts = fields.tokenizer(&app.models)?;
        let text: String = fields.get("prompt", "a text")?.ok_or_else(|| Fault::of("prompt", "prompt is missing"))?;
        let special = fields.get("add_special_tokens", "true or false")?.unwrap_or(false);
        let mut tokens = if special { facts.front.clone() } else { Vec::new() };
        // Only as the whole text, so that no text can smuggle one in.
        match facts.specials().iter().find(|(_, name)| *name == text) {
            Some(&(id, _)) => tokens.push(id),
            None => {
                let encoded = facts.tokenizer.encode(text.as_bytes(), &mut tokens);
                encoded.map_err(|error| Fault::of("prompt", error.to_string()))?;
            }
        }
        Ok(json!({"count": tokens.len(), "max_model_len": facts.sequence, "tokens": tokens}))
    };
    answered(tokens.await)
}

async fn detokenize(State(app): State<Arc<App>>, of: Of, request: Request) -> Answered {
    let text = async {
        let fields = fields(of, request).await?;
        let facts = fields.tokenizer(&app.models)?;
        let what = "a list of token ids";
        let ids: Vec<u16> = fields.get("tokens", what)?.ok_or_else(|| Fault::of("tokens", "tokens is missing"))?;
        let bytes = facts.tokenizer.decode(&ids).map_err(|error| Fault::of("tokens", error.to_string()))?;
        Ok(json!({"prompt": String::from_utf8_lossy(&bytes)}))
    };
    answered(text.await)
}

/// Tells the worker when the client has gone.
struct Place {
    gone: Arc<AtomicBool>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gone.store(true, Relaxed);
    }
}

/// An answer under way: what makes it, what it is made of, and its place.
type Begun = (Answer, UnboundedReceiver<Result<Event, Fault>>, Place);

async fn completions(State(app): State<Arc<App>>, of: Of, request: Request) -> Answered {
    let begun = async {
        let ask: Arc<_> = Completion::read(&fields(of, request).await?, &app.models, app.limits.tokens)?.into();
        enqueue(&app, &ask).map(|begun| (ask, begun))
    };
    match begun.await {
        Ok((ask, begun)) if ask.stream => stream(ask.include_usage, begun),
        Ok((_, begun)) => collect(begun).await.unwrap_or_else(|fault| fault.response()),
        Err(fault) => fault.response(),
    }
}

/// Gives a request to the worker.
fn enqueue(app: &App, ask: &Arc<Completion>) -> Result<Begun, Fault> {
    let full = |_| Fault::new(StatusCode::SERVICE_UNAVAILABLE, "the queue is full: try again later");
    let permit = app.places.clone().try_acquire_owned().map_err(full)?;
    let place = Place { gone: Arc::default() };
    let (answer, events) = unbounded_channel();
    let deadline = Instant::now() + app.limits.time;
    let job = Job { ask: ask.clone(), gone: place.gone.clone(), deadline, answer, _place: permit };
    let tokens: usize = ask.prompts.iter().map(|prompt| prompt.own()).sum();
    app.metrics.tokens_in.fetch_add(tokens as u64, Relaxed);
    app.jobs.send(job).map_err(|_| Fault::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"))?;
    let id = format!("cmpl-{:x}-{}", std::process::id(), app.next.fetch_add(1, Relaxed));
    Ok((Answer::new(ask.clone(), app.models[ask.model].clone(), id), events, place))
}

/// Waits for a whole answer.
async fn collect((mut answer, mut events, _place): Begun) -> Result<Answered, Fault> {
    let mut pieces = answer.begin();
    loop {
        match events.recv().await {
            Some(Ok(Event::Done)) => break,
            Some(event) => pieces.extend(answer.pieces(event?)),
            None => return Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "the worker has stopped")),
        }
    }
    Ok(reply(StatusCode::OK, &answer.response(answer.joined(pieces), Some(answer.usage()))))
}

/// Sends the pieces of an answer as they come.
fn stream(include_usage: bool, (mut answer, events, place): Begun) -> Answered {
    let chunk = |answer: &Answer, piece: Choice| frame(&answer.response(vec![piece], None));
    let first: String = answer.begin().into_iter().map(|piece| chunk(&answer, piece)).collect();
    let later = UnboundedReceiverStream::new(events).map(move |event| {
        // The place is kept as long as somebody reads.
        let _place = &place;
        match event {
            Ok(Event::Done) => {
                let usage = include_usage.then(|| frame(&answer.response(Vec::new(), Some(answer.usage()))));
                usage.unwrap_or_default() + "data: [DONE]\n\n"
            }
            Ok(event) => answer.pieces(event).into_iter().map(|piece| chunk(&answer, piece)).collect(),
            Err(fault) => frame(&fault.body()),
        }
    });
    let frames = tokio_stream::once(first).chain(later).filter(|frames| !frames.is_empty());
    let mut response = Response::new(Body::from_stream(frames.map(Ok::<String, Infallible>)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// A server-sent event.
fn frame(body: &impl Serialize) -> String {
    format!("data: {}\n\n", ltm::json::line(body))
}
