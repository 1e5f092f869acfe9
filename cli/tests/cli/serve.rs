//! `ltm serve`, asked over HTTP by a client of a few lines.

use super::Lab;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A server of this program, stopped at the end of the test.
struct Served {
    child: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

struct Answer {
    status: u16,
    /// In small letters.
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    #[track_caller]
    fn fails(&self, status: u16, words: &str) {
        let error = &self.json()["error"];
        assert_eq!(self.status, status, "{}", self.body);
        assert!(error["message"].as_str().unwrap().contains(words), "{}", self.body);
        assert!(error["type"].is_string() && error.get("param").is_some() && error.get("code").is_some());
    }

    /// The chunks of a stream.
    fn chunks(&self) -> Vec<Value> {
        let lines = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        lines.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

impl Served {
    fn start(lab: &Lab, args: &[&str]) -> Self {
        let args = [&["serve", "--addr", "127.0.0.1:0"], args].concat();
        let mut child = lab.command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").expect("an address").to_string();
        Self { child, address }
    }

    /// Sends a request and leaves the answer to be read. HTTP/1.0 ends it with the connection.
    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        // The server may answer and close before it has read a body that is too large.
        _ = write!(stream, "{method} {path} HTTP/1.0\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let mut text = String::new();
        self.send(method, path, headers, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
        Answer { status: head[9..12].parse().unwrap(), head: head.to_lowercase(), body: body.into() }
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "", &body.to_string())
    }

    #[track_caller]
    fn complete(&self, body: &Value) -> Value {
        let answer = self.post("/v1/completions", body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "")
    }
}

/// The numbers of a list, NaN for null.
fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

#[test]
fn a_server_writes_scores_and_refuses() {
    let lab = Lab::trained();
    for (name, kind) in [("ar", "model.kind=ar"), ("mdlm", "model.kind=mdlm")] {
        lab.train(name, &[kind]).succeeds();
    }
    let gpt2 = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/gpt2");
    lab.run(&["import", "gpt2", gpt2, "--out", "gpt2", "--tokenizer", "bytes"]).succeeds();
    let server = Served::start(&lab, &["run", "ar", "mdlm", "gpt2"]);
    writes(&server);
    scores(&server);
    agrees_with_eval(&lab, &server);
    refuses(&server);
    tells_about_itself(&server);
}

fn writes(server: &Served) {
    let body = json!({"prompt": "12 green", "max_tokens": 9, "n": 2, "seed": 5, "logprobs": 2, "echo": true});
    let whole = server.complete(&body);
    assert_eq!(whole["usage"], json!({"prompt_tokens": 8, "completion_tokens": 18, "total_tokens": 26}));
    assert_eq!((text(&whole["object"]), text(&whole["model"])), ("text_completion", "run"));
    assert_eq!(whole["choices"], server.complete(&body)["choices"], "the same seed gives the same text");
    let [one, two] = [0, 1].map(|n| text(&whole["choices"][n]["text"]));
    assert!(one != two && one.starts_with("12 green") && two.starts_with("12 green"), "{one:?} {two:?}");

    // A stream has the same pieces.
    let mut streamed = body.clone();
    (streamed["stream"], streamed["stream_options"]) = (json!(true), json!({"include_usage": true}));
    let answer = server.post("/v1/completions", &streamed);
    assert!(answer.head.contains("text/event-stream") && answer.body.ends_with("data: [DONE]\n\n"));
    let chunks = answer.chunks();
    assert!(chunks.len() > 18, "a chunk for each token: {}", chunks.len());
    assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
    for number in 0..2 {
        let choices = chunks.iter().flat_map(|chunk| chunk["choices"].get(0));
        let pieces: Vec<&Value> = choices.filter(|piece| piece["index"] == number).collect();
        let choice = &whole["choices"][number];
        assert_eq!(pieces.iter().map(|piece| text(&piece["text"])).collect::<String>(), text(&choice["text"]));
        let log_ps = pieces.iter().filter_map(|piece| piece["logprobs"]["token_logprobs"].as_array()).flatten();
        assert_eq!(json!(log_ps.collect::<Vec<_>>()), choice["logprobs"]["token_logprobs"]);
        assert_eq!(pieces.last().unwrap()["finish_reason"], choice["finish_reason"]);
    }

    // A text ends before a stop text.
    let greedy = |stop: Value| {
        let body = json!({"prompt": "12 green", "max_tokens": 12, "temperature": 0, "model": "ar", "stop": stop});
        server.complete(&body)["choices"][0].clone()
    };
    let free = greedy(json!(null));
    // A byte that is no character would be shown as another.
    let middle = text(&free["text"]).chars().rfind(char::is_ascii).expect("a character").to_string();
    let stopped = greedy(json!(["nowhere to be found", middle]));
    assert_eq!(text(&stopped["text"]), text(&free["text"]).split(&*middle).next().unwrap());
    assert_eq!((text(&free["finish_reason"]), text(&stopped["finish_reason"])), ("length", "stop"));

    // Masked diffusion fills a gap.
    let gap = json!({"prompt": "12 green", "suffix": " hang", "max_tokens": 7, "model": "mdlm"});
    let filled = server.complete(&gap);
    assert_eq!(filled["choices"], server.complete(&gap)["choices"]);
    assert!(filled["usage"]["completion_tokens"].as_u64().unwrap() <= 7);
}

fn scores(server: &Served) {
    for (model, protocol) in [("run", "prefix"), ("ar", "nll")] {
        let score = |prompts: Value, context: Option<usize>, max_tokens: usize, logprobs: usize| {
            let contexts = context.map(|context| vec![context; prompts.as_array().unwrap().len()]);
            let whole = server.complete(&json!({
                "prompt": prompts, "context_tokens": contexts, "max_tokens": max_tokens, "temperature": 0, "echo": true,
                "logprobs": logprobs, "model": model,
            }));
            assert_eq!(text(&whole["ltm"]["protocol"]), protocol);
            whole["choices"].as_array().unwrap().iter().map(|choice| choice["logprobs"].clone()).collect::<Vec<_>>()
        };
        // The probabilities of all next tokens sum to one: behind the prior, within a block, at a cut and behind a context.
        let ids: Vec<u16> = b"3 green bottles hang".iter().map(|&byte| byte.into()).collect();
        for (seen, context) in [(1, None), (5, None), (7, None), (12, Some(12)), (14, Some(12))] {
            let every: Vec<Vec<u16>> = (0..258).map(|token| [&ids[..seen], &[token]].concat()).collect();
            let answers = every.chunks(64).flat_map(|prompts| score(json!(prompts), context, 0, 0));
            let sum: f64 = answers.map(|of| numbers(&of["token_logprobs"])[seen].exp()).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{model} {seen} {context:?}: {sum}");
        }
        // Posteriors of a latent model: from the prior, and at the cuts.
        let body = json!({"prompt": [ids], "max_tokens": 3, "logprobs": 0, "echo": true, "model": model});
        let choice = server.complete(&body)["choices"][0].clone();
        let blocks = choice["blocks"].as_array().map_or(&[][..], |blocks| blocks);
        let span = |block: &Value| ["begin", "end"].map(|name| block[name].as_u64().unwrap());
        let ends: &[[u64; 2]] = if model == "run" { &[[0, 7], [7, 15], [15, 20], [20, 23]] } else { &[] };
        assert_eq!(blocks.iter().map(span).collect::<Vec<_>>(), ends, "{model}");
        for (number, block) in blocks.iter().enumerate() {
            let kl = numbers(&block["kl"]);
            assert!(kl.len() == 2 && kl.iter().all(|kl| (*kl > 0.0) == (number > 0)), "{block}");
        }
        // Alone and in company, and with other texts behind: the same bits.
        let alone = score(json!([ids]), None, 0, 3);
        let company = score(json!([[1, 2, 3], ids, [9], ids[..11]]), None, 0, 3);
        assert_eq!(alone[0], company[1], "{model}");
        let log_ps = numbers(&alone[0]["token_logprobs"]);
        assert_eq!(numbers(&company[3]["token_logprobs"])[1..], log_ps[1..11]);
        assert!(log_ps[0].is_nan() && log_ps[1..].iter().all(|log_p| *log_p < 0.0), "{log_ps:?}");

        // One entry for the token drawn, which is the likeliest of its place.
        let with_next = &score(json!([ids]), None, 1, 1)[0];
        let more = numbers(&with_next["token_logprobs"]);
        assert_eq!((&more[1..ids.len()], more.len()), (&log_ps[1..], ids.len() + 1));
        let top = with_next["top_logprobs"].as_array().unwrap().last().unwrap().as_object().unwrap();
        assert_eq!(top.values().next().unwrap().as_f64(), more.last().copied());
    }
}

/// The numbers of a client are those of `ltm eval`.
fn agrees_with_eval(lab: &Lab, server: &Served) {
    let (line, short) = ("7 green bottles, hanging", "7 greens");
    for (model, protocol, line) in [
        ("run", "prefix", line),
        ("ar", "nll", line),
        ("ar", "prefix", line),
        ("gpt2", "nll", short),
        ("gpt2", "prefix", short),
    ] {
        std::fs::write(lab.path("line.txt"), line).unwrap();
        let ids: Vec<u16> = [&[256], &line.bytes().map(u16::from).collect::<Vec<_>>()[..], &[257]].concat();
        let half = ids.len().div_ceil(2);
        let first = if protocol == "prefix" { half } else { 1 };
        let eval = lab.ltm(&format!("eval {model} --data line.txt --protocol {protocol} --json")).json();
        let figures = &eval["results"][0];
        assert_eq!((&figures["sequences"], &figures["tokens"]), (&json!(1), &json!(ids.len() - first)), "{eval}");
        let body = json!({
            "model": model, "prompt": [ids], "context_tokens": [half], "max_tokens": 0, "echo": true, "logprobs": 0,
        });
        let answer = server.complete(&body);
        let served: f64 =
            numbers(&answer["choices"][0]["logprobs"]["token_logprobs"])[first..].iter().map(|x| -x).sum();
        let nats = figures["nats"].as_f64().unwrap();
        // Of the whole text, eval takes the logarithms in the type of the weights.
        let difference = (served - nats).abs();
        assert!(
            if protocol == "prefix" { difference == 0.0 } else { difference < 1e-6 * nats },
            "{model} {served} {nats}"
        );
    }
}

fn refuses(server: &Served) {
    let post = |body: &str| server.ask("POST", "/v1/completions", "", body);
    post("{").fails(400, "not a JSON object");
    post(r#"{"max_tokens": -1}"#).fails(400, "max_tokens must be a whole number");
    post(r#"{"prompt": [258]}"#).fails(400, "token 258 is beyond the vocabulary");
    post(r#"{"temperature": 1e999}"#).fails(400, "not a JSON object");
    post(&json!({"prompt": "x".repeat(33)}).to_string()).fails(400, "the model reads 32");
    post(r#"{"suffix": "x"}"#).fails(400, "suffix is not supported");
    post(r#"{"model": "mdlm", "logprobs": 1}"#).fails(400, "no probability for each token");
    post(r#"{"model": "gpt-4"}"#).fails(404, "there are run, ar, mdlm, gpt2");
    post(&"x".repeat((1 << 20) + 1)).fails(413, "at most 1048576 bytes");
    server.get("/v1/completions").fails(405, "does not take GET");
    server.get("/v1/nothing").fails(404, "there is no /v1/nothing");
    server.post("/v1/chat/completions", &json!({})).fails(404, "no chat template; use /v1/completions");
    server.ask("GET", "/v1/models", "Host: example.org\r\n", "").fails(403, "Host");
    assert_eq!(server.ask("GET", "/v1/models", "Host: localhost:80\r\n", "").status, 200);
}

fn tells_about_itself(server: &Served) {
    let models = server.get("/v1/models").json();
    let models = models["data"].as_array().unwrap();
    assert_eq!(models.iter().map(|model| text(&model["id"])).collect::<Vec<_>>(), ["run", "ar", "mdlm", "gpt2"]);
    let scoring = json!({"protocol": "prefix", "fast_steps": 2, "draws": 16, "cuts": "8,16,32,64 and every 64", "drawn": "one draw, inferred from the prompt"});
    assert_eq!(models[0]["ltm"], scoring);
    assert_eq!(server.get("/health").status, 200);

    let tokens = |text: &Value| server.post("/tokenize", &json!({"prompt": text})).json()["tokens"].clone();
    assert_eq!(tokens(&json!("né")), json!([110, 0xC3, 0xA9]));
    assert_eq!(server.post("/detokenize", &json!({"tokens": [110, 0xC3, 0xA9]})).json()["prompt"], "né");
    server.post("/detokenize", &json!({"tokens": [258]})).fails(400, "beyond");
    assert_eq!(server.post("/run/ar/tokenize", &json!({"prompt": "n"})).json()["tokens"], json!([110]));
    assert_eq!(server.post("/run/ar/v1/completions", &json!({"max_tokens": 1})).json()["model"], "ar");
    server.post("/run/ar/v1/completions", &json!({"model": "run"})).fails(400, "this is the path of \"ar\"");
    server.get("/run/no/tokenizer_info").fails(404, "no model \"no\"");
    server.get("/run/no/v1/models").fails(404, "no model \"no\"");
    assert_eq!(server.get("/run/ar/v1/models").json()["data"].as_array().unwrap().len(), 1);
    let info = server.get("/tokenizer_info").json();
    assert_eq!((tokens(&info["bos_token"]), tokens(&info["eos_token"])), (json!([256]), json!([257])));
    let metrics = server.get("/metrics").body;
    for line in [r#"ltm_requests_total{path="/v1/completions",status="413"} 1"#, "ltm_queue 0"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}

/// Starts a stream of many tokens, and waits for the first.
fn begun(server: &Served, tokens: usize) -> BufReader<TcpStream> {
    // The likeliest token is not the end.
    let body = json!({"prompt": "1 green", "max_tokens": tokens, "temperature": 0, "stream": true}).to_string();
    let mut stream = BufReader::new(server.send("POST", "/v1/completions", "", &body));
    let mut line = String::new();
    while !line.starts_with("data:") {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "no stream");
    }
    stream
}

#[test]
fn a_full_queue_and_a_signal_end_in_order() {
    let lab = Lab::new();
    lab.train("ar", &["model.kind=ar"]).succeeds();
    let mut server = Served::start(&lab, &["ar", "--queue", "1", "--max-tokens", "1000000"]);
    let short = json!({"prompt": "1", "max_tokens": 1});
    let stream = begun(&server, 1_000_000);
    let full = server.post("/v1/completions", &short);
    full.fails(503, "the queue is full");
    assert!(full.head.contains("retry-after: 1"), "{}", full.head);
    assert!(server.get("/metrics").body.contains("ltm_queue 1"));

    // A client that goes away frees its place.
    drop(stream);
    let since = Instant::now();
    while server.post("/v1/completions", &short).status != 200 {
        assert!(since.elapsed() < Duration::from_secs(5), "the place was not freed");
        sleep(Duration::from_millis(5));
    }

    // What runs is finished, the rest is refused.
    let mut stream = begun(&server, 2000);
    let id = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
    assert!(server.child.wait().unwrap().success());
    assert!(TcpStream::connect(&server.address).is_err());
}

#[test]
fn other_machines_need_a_key() {
    let lab = Lab::new();
    lab.train("ar", &["model.kind=ar"]).succeeds();
    let refused = lab.ltm("serve ar --addr 0.0.0.0:0");
    refused.fails(2, &["0.0.0.0:0 can be reached from other machines", "--api-key KEY"]);
    let server = Served::start(&lab, &["ar", "--api-key", "secret", "--timeout", "1", "--max-tokens", "1000000"]);
    let ask = |headers: &str| server.ask("GET", "/v1/models", headers, "");
    ask("").fails(401, "the key is missing or wrong");
    ask("Authorization: Bearer secreT\r\n").fails(401, "the key is missing or wrong");
    assert_eq!(ask("Authorization: Bearer secret\r\n").status, 200);
    assert_eq!(server.get("/health").status, 200);
    let long = json!({"max_tokens": 1_000_000, "temperature": 0}).to_string();
    let late = server.ask("POST", "/v1/completions", "Authorization: Bearer secret\r\n", &long);
    late.fails(504, "longer than the server's limit");
}
