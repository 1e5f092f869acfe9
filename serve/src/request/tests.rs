use super::*;
use engine::rng::Stream;
use ltm::config::{Config, ModelKind};
use ltm::data::Bytes;
use serde_json::json;

fn models() -> Vec<Arc<Facts>> {
    let facts = |(name, kind): (&str, ModelKind)| {
        let mut config = Config::default();
        (config.model.kind, config.model.seq, config.model.max_seq) = (kind, 32, 32);
        Facts::new(name.into(), &config, Arc::new(Bytes), 8, 64).unwrap().into()
    };
    [("one", ModelKind::Ltm), ("gap", ModelKind::Mdlm), ("old", ModelKind::Gpt2)].map(facts).into()
}

fn read(body: &str) -> Result<Completion, Fault> {
    Completion::read(&Fields::read(body.as_bytes(), None)?, &models(), 100)
}

#[test]
fn what_is_not_said_has_a_default() {
    let ask = read(r#"{"prompt": "hé", "nobody_knows": [1], "logit_bias": null, "best_of": 1, "user": "me"}"#).unwrap();
    assert_eq!((ask.model, ask.max_tokens, ask.n, ask.echo, ask.stream, ask.logprobs), (0, 16, 1, false, false, None));
    let Writing { temperature, top_p, top_k, seed, .. } = ask.writing;
    assert_eq!((temperature, top_p, top_k, seed), (1.0, 1.0, 0, 0));
    let front = models()[0].front.clone();
    let tokens = [&front[..], &[104, 0xC3, 0xA9]].concat();
    assert_eq!(ask.prompts, [Prompt { tokens, added: front.len(), text: "hé".into(), context: None }]);
}

#[test]
fn prompts_are_texts_or_ids_and_begin_once() {
    let front = models()[0].front[0];
    let tokens =
        |body: &str| -> Vec<Vec<u16>> { read(body).unwrap().prompts.into_iter().map(|prompt| prompt.tokens).collect() };
    assert_eq!(tokens(r#"{"prompt": ["a", ""]}"#), [vec![front, 97], vec![front]]);
    assert_eq!(tokens(r#"{"prompt": [97, 98]}"#), [[front, 97, 98]]);
    let lists = format!(r#"{{"prompt": [[97], [{front}, 98], []]}}"#);
    assert_eq!(tokens(&lists), [vec![front, 97], vec![front, 98], vec![front]]);
    assert_eq!(tokens("{}"), [[front]]);
    // The windows of lm-evaluation-harness leave no place.
    let full = read(&json!({"prompt": vec![97; 32]}).to_string()).unwrap();
    assert_eq!((full.prompts[0].tokens.len(), full.prompts[0].added), (32, 0));
    let ask = read(r#"{"prompt": ["ab", "abc"], "context_tokens": [1, 3]}"#).unwrap();
    assert_eq!(ask.prompts.iter().map(|prompt| prompt.context).collect::<Vec<_>>(), [Some(2), Some(4)]);
}

#[test]
fn a_path_has_a_model() {
    let model =
        |body: &str, of: &str| Fields::read(body.as_bytes(), Some(of.into()))?.model(&models()).map(|(at, _)| at);
    assert_eq!((model("{}", "old"), model(r#"{"model": "old"}"#, "old")), (Ok(2), Ok(2)));
    assert_eq!(model(r#"{"model": "one"}"#, "old").unwrap_err().param, Some("model"));
    assert_eq!(model("{}", "new").unwrap_err().status, StatusCode::NOT_FOUND);
}

#[test]
fn a_fault_names_the_field() {
    let long = format!(r#"{{"prompt": "{}"}}"#, "x".repeat(33));
    let cases = [
        (r#"{"prompt": 1.5}"#, "prompt"),
        (r#"{"prompt": []}"#, "prompt"),
        (r#"{"prompt": ["a", 1]}"#, "prompt"),
        (r#"{"prompt": [258]}"#, "prompt"),
        (r#"{"prompt": [-1]}"#, "prompt"),
        (&long, "prompt"),
        (r#"{"prompt": ["a", "b"], "n": 33}"#, "prompt"),
        (r#"{"n": 0}"#, "n"),
        (r#"{"max_tokens": -1}"#, "max_tokens"),
        (r#"{"max_tokens": 101}"#, "max_tokens"),
        (r#"{"temperature": "NaN"}"#, "temperature"),
        (r#"{"temperature": -0.1}"#, "temperature"),
        (r#"{"top_p": 0}"#, "top_p"),
        (r#"{"top_p": 1.01}"#, "top_p"),
        (r#"{"top_k": -1}"#, "top_k"),
        (r#"{"seed": 0.5}"#, "seed"),
        (r#"{"stop": [""]}"#, "stop"),
        (r#"{"stop": 1}"#, "stop"),
        (r#"{"logprobs": 21}"#, "logprobs"),
        (r#"{"logprobs": true}"#, "logprobs"),
        (r#"{"echo": 1}"#, "echo"),
        (r#"{"stream_options": 1}"#, "stream_options"),
        (r#"{"suffix": "a"}"#, "suffix"),
        (r#"{"best_of": 2}"#, "best_of"),
        (r#"{"presence_penalty": 0.5}"#, "presence_penalty"),
        (r#"{"logit_bias": {"1": 2}}"#, "logit_bias"),
        (r#"{"context_tokens": [1, 2]}"#, "context_tokens"),
        (r#"{"prompt": "a", "context_tokens": 2}"#, "context_tokens"),
        (r#"{"model": "two"}"#, "model"),
        (r#"{"model": "gap", "logprobs": 1}"#, "logprobs"),
        (r#"{"model": "gap", "prompt": "abc", "suffix": "def", "max_tokens": 30}"#, "max_tokens"),
        (r#"{"model": "old", "prompt": "abc", "max_tokens": 32}"#, "max_tokens"),
    ];
    for (body, param) in cases {
        let fault = read(body).unwrap_err();
        assert_eq!(fault.param, Some(param), "{body}: {fault:?}");
    }
    assert_eq!(read(r#"{"model": "two"}"#).unwrap_err().status, StatusCode::NOT_FOUND);
    for body in ["", "[]", "{", "1e999", r#"{"temperature": NaN}"#, r#"{"temperature": 1e999}"#, "\u{feff}{}", "null"] {
        let fault = read(body).unwrap_err();
        assert_eq!((fault.status, fault.param), (StatusCode::BAD_REQUEST, None), "{body}");
    }
    let deep = format!(r#"{{"prompt": {}1{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(read(&deep).is_err());
}

/// Every body gives a request or a fault that says why.
#[test]
fn no_body_breaks_the_reader() {
    let whole = r#"{"model": "old", "prompt": ["aé", "b"], "max_tokens": 3, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "n": 2,
        "stop": ["x", "\n"], "seed": -7, "logprobs": 2, "echo": true, "stream": false, "stream_options": {"include_usage": true},
        "context_tokens": [1, 0], "suffix": "", "logit_bias": {}, "best_of": 1, "prompt2": [[1, 2], []], "x": 1e30}"#;
    let pieces = [
        "[",
        "]",
        "{",
        "}",
        "\"",
        ",",
        ":",
        "null",
        "-",
        "1e999",
        "NaN",
        "\\u0000",
        "true",
        "99999999999999999999",
        "é",
    ];
    let (models, random) = (models(), Stream::new(1, 2));
    let (mut read, mut refused) = (0, 0);
    for round in 0..5_000 {
        let (draws, mut drawn) = (random.sample(round), 0);
        let mut below = |n: usize| {
            drawn += 1;
            (draws.uniform(drawn) * n as f64) as usize
        };
        let mut body = whole.as_bytes().to_vec();
        for _ in 0..=below(3) {
            let at = below(body.len());
            match below(4) {
                0 => body.truncate(at.max(1)),
                1 => body[at] = below(256) as u8,
                2 if body.len() > 20 => drop(body.drain(at..(at + below(12)).min(body.len() - 1).max(at))),
                _ => drop(body.splice(at..at, pieces[below(pieces.len())].bytes())),
            }
        }
        match Fields::read(&body, None).and_then(|fields| Completion::read(&fields, &models, 100)) {
            Ok(ask) => {
                assert!(ask.prompts.iter().all(|prompt| (1..=32).contains(&prompt.tokens.len())));
                read += 1;
            }
            Err(fault) => {
                assert!(fault.status.is_client_error() && !fault.message.is_empty());
                refused += 1;
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} {refused}");
}
