//! Requests: from bytes to what the worker can do, or a fault that names the field.

use crate::facts::Facts;
use crate::fault::Fault;
use axum::http::StatusCode;
use ltm::generate::Writing;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Most choices of a request, prompts times `n`.
const MOST_CHOICES: usize = 64;
/// Most stop texts, and most bytes of one.
const MOST_STOPS: (usize, usize) = (16, 1024);
/// Most of the likeliest tokens at each place.
const MOST_LIKELY: usize = 20;

/// The fields of a request.
pub struct Fields {
    all: Map<String, Value>,
    /// The model in its path, if there is one.
    of: Option<String>,
}

impl Fields {
    /// No fields, asked of the path of this model, or of that of all.
    pub fn none(of: Option<String>) -> Self {
        Self { all: Map::new(), of }
    }

    /// Reads an object that was sent to the path of this model, or to that of all.
    pub fn read(body: &[u8], of: Option<String>) -> Result<Self, Fault> {
        let bad = |error: serde_json::Error| {
            Fault::new(StatusCode::BAD_REQUEST, format!("the body is not a JSON object: {error}"))
        };
        Ok(Self { all: serde_json::from_slice(body).map_err(bad)?, of })
    }

    /// A field that may be missing or null.
    pub fn get<T: DeserializeOwned>(&self, name: &'static str, what: &str) -> Result<Option<T>, Fault> {
        match self.all.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                T::deserialize(value).map(Some).map_err(|_| Fault::of(name, format!("{name} must be {what}")))
            }
        }
    }

    /// A number within a range.
    fn number(&self, name: &'static str, least: f64, most: f64) -> Result<Option<f64>, Fault> {
        let what = match most.is_finite() {
            true => format!("a number from {least} to {most}"),
            false => format!("a number, {least} or more"),
        };
        match self.get(name, &what)? {
            Some(x) if !(x >= least && x <= most) => Err(Fault::of(name, format!("{name} is {x}, must be {what}"))),
            number => Ok(number),
        }
    }

    /// A whole number within a range.
    fn count(&self, name: &'static str, least: usize, most: usize) -> Result<Option<usize>, Fault> {
        let what = format!("a whole number from {least} to {most}");
        match self.get(name, &what)? {
            Some(count) if !(least..=most).contains(&count) => {
                Err(Fault::of(name, format!("{name} is {count}, must be {what}")))
            }
            count => Ok(count),
        }
    }

    /// The model asked for, in the body or in the path; the first if none is.
    pub fn model<'a>(&self, models: &'a [Arc<Facts>]) -> Result<(usize, &'a Arc<Facts>), Fault> {
        let name: Option<String> = self.get("model", "a text")?;
        match (&name, &self.of) {
            (Some(name), Some(of)) if name != of => {
                Err(Fault::of("model", format!("model is {name:?}, but this is the path of {of:?}")))
            }
            (name, of) => find(models, name.as_deref().or(of.as_deref())),
        }
    }

    /// The model whose tokenizer is asked for.
    pub fn tokenizer<'a>(&self, models: &'a [Arc<Facts>]) -> Result<&'a Facts, Fault> {
        let name: Option<String> = self.get("model", "a text")?;
        // Tokens of another model would be scored without a word.
        let differ = |model: &Arc<Facts>| model.tokenizer.name() != models[0].tokenizer.name();
        if name.is_none() && self.of.is_none() && models.iter().any(differ) {
            let message = "the models have different tokenizers: name the model, or use its own path, such as";
            return Err(Fault::of("model", format!("{message} /run/{}/tokenize", models[0].name)));
        }
        self.model(models).map(|(_, facts)| &**facts)
    }
}

/// A model by its name, or the first one.
fn find<'a>(models: &'a [Arc<Facts>], name: Option<&str>) -> Result<(usize, &'a Arc<Facts>), Fault> {
    let found = models.iter().enumerate().find(|(_, model)| name.is_none_or(|name| model.name == name));
    found.ok_or_else(|| {
        let names = models.iter().map(|model| &*model.name).collect::<Vec<_>>().join(", ");
        let message = format!("there is no model {:?}: there are {names}", name.unwrap_or_default());
        Fault { param: Some("model"), ..Fault::new(StatusCode::NOT_FOUND, message) }
    })
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Several<T> {
    fn all(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// The forms of a prompt.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    Texts(Several<String>),
    Ids(Vec<u64>),
    Lists(Vec<Vec<u64>>),
}

/// A text to be continued or scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens, behind those that stand before every text.
    pub tokens: Vec<u16>,
    /// The number of tokens that were put before it.
    pub added: usize,
    /// Its text.
    pub text: String,
    /// The tokens of its context, those put before it included.
    pub context: Option<usize>,
}

impl Prompt {
    /// Its tokens without those put before it.
    pub fn own(&self) -> usize {
        self.tokens.len() - self.added
    }
}

/// A request for completions.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The number of the model.
    pub model: usize,
    /// The texts.
    pub prompts: Vec<Prompt>,
    /// The tokens behind the gap that masked diffusion fills.
    pub suffix: Vec<u16>,
    /// Most tokens to draw.
    pub max_tokens: usize,
    /// How tokens are drawn.
    pub writing: Writing,
    /// Continuations of each prompt.
    pub n: usize,
    /// The number of likeliest tokens to show at each place.
    pub logprobs: Option<usize>,
    /// Whether the text includes the prompt.
    pub echo: bool,
    /// Whether tokens are sent as they are drawn.
    pub stream: bool,
    /// Whether a stream ends with the number of tokens.
    pub include_usage: bool,
}

impl Completion {
    /// Reads and checks a request.
    ///
    /// # Errors
    /// A fault that names the field.
    pub fn read(fields: &Fields, models: &[Arc<Facts>], most_tokens: usize) -> Result<Self, Fault> {
        let (model, facts) = fields.model(models)?;
        refuse_others(fields)?;

        let max_tokens = fields.count("max_tokens", 0, most_tokens)?.unwrap_or(16.min(most_tokens));
        let n = fields.count("n", 1, MOST_CHOICES)?.unwrap_or(1);
        let echo = fields.get("echo", "true or false")?.unwrap_or(false);
        let stream = fields.get("stream", "true or false")?.unwrap_or(false);
        let logprobs = fields.count("logprobs", 0, MOST_LIKELY)?;
        if facts.kind.method().is_some() && logprobs.is_some() {
            let model = format!("{} is a model of masked diffusion", facts.name);
            let message =
                format!("{model}, which has a bound for a text, but no probability for each token: leave out logprobs");
            return Err(Fault::of("logprobs", message));
        }
        #[derive(Default, Deserialize)]
        struct StreamOptions {
            include_usage: Option<bool>,
        }
        let options: StreamOptions =
            fields.get("stream_options", "an object with include_usage: true or false")?.unwrap_or_default();
        let mut prompts = prompts(fields, facts)?;
        if prompts.is_empty() || prompts.len() * n > MOST_CHOICES {
            let counts = format!("{} prompts with n = {n}", prompts.len());
            return Err(Fault::of("prompt", format!("{counts}: must be 1 to {MOST_CHOICES} choices in all")));
        }
        contexts(fields, &mut prompts)?;
        let suffix = suffix(fields, facts)?;
        for prompt in &prompts {
            fits(prompt, facts, max_tokens, suffix.len())?;
        }
        Ok(Self {
            model,
            prompts,
            suffix,
            max_tokens,
            writing: writing(fields)?,
            n,
            logprobs,
            echo,
            stream,
            include_usage: options.include_usage.unwrap_or(false),
        })
    }

    /// Whether the prompts' tokens get log-probabilities.
    pub fn scores(&self) -> bool {
        self.echo && self.logprobs.is_some()
    }
}

/// Refuses what would change the text and is not done.
fn refuse_others(fields: &Fields) -> Result<(), Fault> {
    let zero = [
        "presence_penalty",
        "frequency_penalty",
        "min_p",
        "min_tokens",
        "mirostat",
        "dry_multiplier",
        "xtc_probability",
    ];
    let one = ["repetition_penalty", "repeat_penalty", "best_of", "typical_p", "tfs_z"];
    let usual = zero.into_iter().map(|name| (name, 0.0)).chain(one.into_iter().map(|name| (name, 1.0)));
    for (name, usual) in usual {
        if fields.get::<f64>(name, "a number")?.is_some_and(|x| x != usual) {
            return Err(Fault::of(name, format!("{name} is not supported: leave it out, or set it to {usual}")));
        }
    }
    let guides = ["grammar", "json_schema", "guided_json", "guided_regex", "guided_choice", "guided_grammar"];
    for name in guides.into_iter().chain(["logit_bias", "stop_token_ids", "ignore_eos", "response_format"]) {
        match fields.all.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::Object(object)) if object.is_empty() => {}
            Some(Value::Array(array)) if array.is_empty() => {}
            Some(_) => return Err(Fault::of(name, format!("{name} is not supported: leave it out"))),
        }
    }
    Ok(())
}

/// How tokens are drawn.
fn writing(fields: &Fields) -> Result<Writing, Fault> {
    let stop: Vec<String> = fields.get("stop", "a text or a list of texts")?.map_or_else(Vec::new, Several::all);
    let (most, bytes) = MOST_STOPS;
    if stop.len() > most || stop.iter().any(|stop| stop.is_empty() || stop.len() > bytes) {
        return Err(Fault::of("stop", format!("stop must be at most {most} texts of 1 to {bytes} bytes")));
    }
    let top_p = fields.number("top_p", 0.0, 1.0)?.unwrap_or(1.0);
    if top_p == 0.0 {
        return Err(Fault::of("top_p", "top_p is 0, must be above 0 and at most 1"));
    }
    Ok(Writing {
        temperature: fields.number("temperature", 0.0, f64::INFINITY)?.unwrap_or(1.0),
        top_p,
        top_k: fields.count("top_k", 0, u32::MAX as usize)?.unwrap_or(0),
        seed: seed(fields)?,
        stop,
        ..Writing::default()
    })
}

/// The seed; negative ones count, too.
fn seed(fields: &Fields) -> Result<u64, Fault> {
    let what = "a whole number of 64 bits";
    let Some(seed) = fields.get::<Value>("seed", what)? else { return Ok(0) };
    let seed = seed.as_u64().or_else(|| seed.as_i64().map(|seed| seed as u64));
    seed.ok_or_else(|| Fault::of("seed", format!("seed must be {what}")))
}

/// The prompts as tokens.
fn prompts(fields: &Fields, facts: &Facts) -> Result<Vec<Prompt>, Fault> {
    let what = "a text, a list of texts, a list of token ids, or a list of lists of token ids";
    let vocab = facts.tokenizer.vocab();
    let of_ids = |ids: Vec<u64>| {
        let id = |id: u64| {
            let known = u16::try_from(id).ok().filter(|&id| usize::from(id) < vocab);
            let message = || format!("token {id} is beyond the vocabulary: ids are below {vocab}");
            known.ok_or_else(|| Fault::of("prompt", message()))
        };
        let tokens = ids.into_iter().map(id).collect::<Result<Vec<u16>, _>>()?;
        let bytes = facts.tokenizer.decode(&tokens).unwrap_or_default();
        Ok(begun(tokens, String::from_utf8_lossy(&bytes).into_owned(), facts))
    };
    let of_text = |text: String| {
        let mut tokens = Vec::new();
        facts.tokenizer.encode(text.as_bytes(), &mut tokens).map_err(|error| Fault::of("prompt", error.to_string()))?;
        Ok(begun(tokens, text, facts))
    };
    match fields.get("prompt", what)? {
        None => Ok(vec![of_text(String::new())?]),
        Some(Prompts::Texts(texts)) => texts.all().into_iter().map(of_text).collect(),
        Some(Prompts::Ids(ids)) => Ok(vec![of_ids(ids)?]),
        Some(Prompts::Lists(lists)) => lists.into_iter().map(of_ids).collect(),
    }
}

/// Tokens behind those that stand before every text, unless they already begin with these or with a begin token, or leave no place.
fn begun(tokens: Vec<u16>, text: String, facts: &Facts) -> Prompt {
    let front = facts.front.len();
    let begins = tokens.starts_with(&facts.front) || tokens.first() == Some(&facts.tokenizer.begin());
    let added = if begins || tokens.len() + front > facts.sequence { 0 } else { front };
    let tokens = [&facts.front[..added], &tokens].concat();
    Prompt { tokens, added, text, context: None }
}

/// Sets the ends of the contexts.
fn contexts(fields: &Fields, prompts: &mut [Prompt]) -> Result<(), Fault> {
    let (name, what) = ("context_tokens", "a whole number for every prompt, at most its tokens");
    let Some(counts) = fields.get::<Several<usize>>(name, what)? else { return Ok(()) };
    let counts = counts.all();
    if counts.len() != prompts.len() || prompts.iter().zip(&counts).any(|(prompt, &count)| count > prompt.own()) {
        return Err(Fault::of(name, format!("{name} must be {what}")));
    }
    for (prompt, count) in prompts.iter_mut().zip(counts) {
        prompt.context = Some(prompt.added + count);
    }
    Ok(())
}

/// The tokens after the gap.
fn suffix(fields: &Fields, facts: &Facts) -> Result<Vec<u16>, Fault> {
    let mut tokens = Vec::new();
    let text: String = fields.get("suffix", "a text")?.unwrap_or_default();
    if !text.is_empty() && facts.kind.method().is_none() {
        let message = format!("suffix is not supported: {} writes in order, masked diffusion fills gaps", facts.name);
        return Err(Fault::of("suffix", message));
    }
    facts.tokenizer.encode(text.as_bytes(), &mut tokens).map_err(|error| Fault::of("suffix", error.to_string()))?;
    Ok(tokens)
}

/// Refuses a prompt that is too long.
fn fits(prompt: &Prompt, facts: &Facts, max_tokens: usize, suffix: usize) -> Result<(), Fault> {
    // The last token of a text that is only scored is not read.
    let (all, most) = (prompt.tokens.len(), facts.sequence + usize::from(max_tokens == 0));
    let before = if prompt.added > 0 { format!(" and {} before it", prompt.added) } else { String::new() };
    let given = format!("the prompt has {} tokens{before}", prompt.own());
    if all > most {
        return Err(Fault::of("prompt", format!("{given}, the model reads {most}")));
    }
    // The last token drawn is not read; all that stands around a gap must be.
    let (read, there) = match facts.positions {
        Some(positions) => ((all + max_tokens).saturating_sub(1), positions),
        None if suffix > 0 => (all + max_tokens + suffix, most + 1),
        None => return Ok(()),
    };
    if read > there {
        let parts = format!("{given}, with max_tokens = {max_tokens} and a suffix of {suffix}");
        return Err(Fault::of("max_tokens", format!("{parts} it takes {read} positions, the model has {there}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
