//! Answers: from the worker's events to the pieces of choices. A stream sends the pieces, other answers join them.

use crate::facts::{Facts, Scoring};
use crate::request::Completion;
use crate::worker::{Event, Finish, Fitted, Scored};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// The log-probabilities of the tokens of a piece.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Logprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
    text_offset: Vec<usize>,
}

/// The tokens of a choice, prompt included if it is shown, that one posterior predicts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latents {
    begin: usize,
    end: usize,
    /// The KL of every latent vector to the prior, in nats, the first layer's first.
    kl: Vec<f64>,
}

/// A choice, or a piece of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    blocks: Vec<Latents>,
}

impl Choice {
    fn join(&mut self, piece: Self) {
        self.text.push_str(&piece.text);
        self.finish_reason = piece.finish_reason.or(self.finish_reason);
        self.blocks.extend(piece.blocks);
        let Some(more) = piece.logprobs else { return };
        let all = self.logprobs.get_or_insert_default();
        all.tokens.extend(more.tokens);
        all.token_logprobs.extend(more.token_logprobs);
        all.top_logprobs.extend(more.top_logprobs);
        all.text_offset.extend(more.text_offset);
    }
}

/// Numbers of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

/// Counts the characters of a text that comes in bytes, as it is shown: wrong bytes stand for one each, as [`String::from_utf8_lossy`] has
/// it.
#[derive(Clone, Debug, Default)]
struct Characters {
    count: usize,
    /// The beginning of a character.
    pending: Vec<u8>,
}

impl Characters {
    fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while !self.pending.is_empty() {
            let (valid, wrong) = match str::from_utf8(&self.pending) {
                Ok(_) => (self.pending.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.count +=
                String::from_utf8_lossy(&self.pending[..valid]).chars().count() + usize::from(wrong > Some(0));
            self.pending.drain(..valid + wrong.unwrap_or(0));
            if wrong.is_none() {
                return;
            }
        }
    }
}

/// A response, or a chunk of one.
#[derive(Debug, Serialize)]
pub struct Response<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    ltm: &'a Scoring,
}

/// An answer under way.
pub struct Answer {
    ask: Arc<Completion>,
    facts: Arc<Facts>,
    id: String,
    created: u64,
    scoring: Scoring,
    fingerprint: String,
    drawn: usize,
    /// Characters and tokens of every choice so far, without the prompt.
    offsets: Vec<(Characters, usize)>,
}

impl Answer {
    /// An answer called `id`.
    pub fn new(ask: Arc<Completion>, facts: Arc<Facts>, id: String) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let behind_contexts = ask.prompts.iter().any(|prompt| prompt.context.is_some());
        let scoring = if behind_contexts { facts.scoring.behind_contexts() } else { facts.scoring.clone() };
        let (fingerprint, offsets) =
            (scoring.fingerprint(), vec![(Characters::default(), 0); ask.prompts.len() * ask.n]);
        Self { ask, facts, id, created, scoring, fingerprint, drawn: 0, offsets }
    }

    /// The pieces before the first event: the prompts, if they are wanted and have nothing to be scored.
    pub fn begin(&self) -> Vec<Choice> {
        let ask = &self.ask;
        let is_ready = |choice: &usize| {
            let prompt = &ask.prompts[choice / ask.n];
            ask.echo && (!ask.scores() || prompt.tokens.len() < 2)
        };
        (0..self.offsets.len()).filter(is_ready).map(|choice| self.echo(choice, &[], &[])).collect()
    }

    /// The prompt of a choice, as a piece.
    fn echo(&self, index: usize, places: &[Scored], fits: &[Fitted]) -> Choice {
        let prompt = &self.ask.prompts[index / self.ask.n];
        let mut logprobs = self.ask.logprobs.map(|_| Logprobs::default());
        if let Some(all) = &mut logprobs {
            let mut before = Characters::default();
            for (place, &token) in prompt.tokens.iter().enumerate().skip(prompt.added) {
                // Clients expect nothing of the first token.
                let scored = if place == prompt.added { None } else { places.get(place - 1) };
                self.push(all, token, scored, before.count);
                before.push(self.bytes(token));
            }
        }
        let blocks = fits.iter().map(|Fitted { places, kl }| {
            let [begin, end] = [places.start, places.end].map(|place| place.saturating_sub(prompt.added));
            Latents { begin, end, kl: kl.clone() }
        });
        Choice { index, text: prompt.text.clone(), logprobs, finish_reason: None, blocks: blocks.collect() }
    }

    fn push(&self, all: &mut Logprobs, token: u16, scored: Option<&Scored>, offset: usize) {
        all.tokens.push(self.facts.shown(token));
        all.token_logprobs.push(scored.map(|scored| scored.log_p));
        let likeliest = |scored: &Scored| scored.top.iter().map(|&(id, log_p)| (self.facts.shown(id), log_p)).collect();
        all.top_logprobs.push(scored.map(likeliest));
        all.text_offset.push(offset);
    }

    fn bytes(&self, token: u16) -> &[u8] {
        self.facts.tokenizer.token_bytes(token).unwrap_or_default()
    }

    /// The pieces that an event brings.
    pub fn pieces(&mut self, event: Event) -> Vec<Choice> {
        match event {
            Event::Scored { prompt, places, fits } => {
                let n = self.ask.n;
                (prompt * n..(prompt + 1) * n).map(|choice| self.echo(choice, &places, &fits)).collect()
            }
            Event::Token { choice, token, text, scored } => {
                self.drawn += 1;
                let prompt = &self.ask.prompts[choice / self.ask.n];
                let before = if self.ask.echo { prompt.text.chars().count() } else { 0 };
                let logprobs = scored.map(|scored| {
                    let mut all = Logprobs::default();
                    self.push(&mut all, token, Some(&scored), before + self.offsets[choice].0.count);
                    all
                });
                let bytes = self.facts.tokenizer.token_bytes(token).unwrap_or_default();
                let (characters, tokens) = &mut self.offsets[choice];
                characters.push(bytes);
                *tokens += 1;
                vec![Choice { index: choice, text, logprobs, ..Choice::default() }]
            }
            Event::End { choice, text, finish, kl } => {
                let prompt = &self.ask.prompts[choice / self.ask.n];
                let begin = if self.ask.echo { prompt.own() } else { 0 };
                let latents = Latents { begin, end: begin + self.offsets[choice].1, kl };
                let is_shown = self.ask.logprobs.is_some() && !latents.kl.is_empty();
                let reason = match finish {
                    Finish::Stop => "stop",
                    Finish::Length => "length",
                };
                let blocks = if is_shown { vec![latents] } else { Vec::new() };
                vec![Choice { index: choice, text, logprobs: None, finish_reason: Some(reason), blocks }]
            }
            Event::Done => Vec::new(),
        }
    }

    /// The tokens so far.
    pub fn usage(&self) -> Usage {
        let prompt_tokens = self.ask.prompts.iter().map(|prompt| prompt.own()).sum();
        Usage { prompt_tokens, completion_tokens: self.drawn, total_tokens: prompt_tokens + self.drawn }
    }

    /// A response or a chunk with these choices.
    pub fn response(&self, choices: Vec<Choice>, usage: Option<Usage>) -> Response<'_> {
        Response {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.facts.name,
            system_fingerprint: &self.fingerprint,
            choices,
            usage,
            ltm: &self.scoring,
        }
    }

    /// Choices from all their pieces.
    pub fn joined(&self, pieces: Vec<Choice>) -> Vec<Choice> {
        let choice = |index| Choice { index, ..Choice::default() };
        let mut choices: Vec<Choice> = (0..self.offsets.len()).map(choice).collect();
        for piece in pieces {
            choices[piece.index].join(piece);
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::Characters;

    #[test]
    fn characters_are_counted_as_they_are_shown() {
        // A wrong byte, one of four, a character in three parts, and one that breaks off.
        let tokens: [&[u8]; 9] =
            [b"a", &[0xFF], &[0xF0, 0x9D], "\u{e9}".as_bytes(), &[0xE2], &[0x86], &[0x92], b"z", &[0xC3]];
        let (mut characters, mut text) = (Characters::default(), Vec::new());
        let counts = tokens.map(|token| {
            text.extend_from_slice(token);
            characters.push(token);
            characters.count
        });
        assert_eq!(counts, [1, 2, 2, 4, 4, 4, 5, 6, 6]);
        // The last one is a character, too, once the text has ended.
        assert_eq!(String::from_utf8_lossy(&text).chars().count(), 7);
    }
}
