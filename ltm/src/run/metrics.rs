//! `metrics.jsonl`: one line for every step, validation, sample of text and trouble, in order.

use crate::evaluate::{Excess, Protocol, Total};
use crate::json::null_is_nan;
use crate::train::StepReport;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::f64::consts::LN_2;

/// A line of the metrics.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A training step.
    Step(StepLine),
    /// A validation.
    Validation(ValidationLine),
    /// A problem that does not stop the run.
    Trouble(TroubleLine),
    /// A sample of generated text.
    Sample(SampleLine),
}

/// The cost of a text.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Cost {
    /// NLL and KL together, in nats per token.
    #[serde(deserialize_with = "null_is_nan")]
    pub loss: f64,
    /// Nats per token.
    #[serde(deserialize_with = "null_is_nan")]
    pub nll: f64,
    /// Nats per token.
    #[serde(deserialize_with = "null_is_nan")]
    pub kl: f64,
    /// The loss in bits per byte of text.
    #[serde(deserialize_with = "null_is_nan")]
    pub bits_per_byte: f64,
}

impl Cost {
    /// From sums over `tokens` tokens, in nats, with this many bytes of text.
    fn of(nats: f64, nll: f64, kl: f64, tokens: u64, bytes: f64) -> Self {
        let tokens = tokens as f64;
        Self { loss: nats / tokens, nll: nll / tokens, kl: kl / tokens, bits_per_byte: nats / LN_2 / bytes }
    }
}

/// A training step. Non-finite numbers are read back as NaN.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StepLine {
    /// Its number, from 1.
    pub step: u64,
    /// What its text cost.
    #[serde(flatten)]
    pub cost: Cost,
    /// Tokens scored.
    pub tokens: u64,
    /// Global norm of the decoder's gradient before clipping.
    #[serde(deserialize_with = "null_is_nan")]
    pub grad_norm: f64,
    /// Slow learning rate.
    pub rate: f64,
    /// Fast learning rate of the first fast step.
    pub fast_rate: f64,
    /// How long it took.
    pub seconds: f64,
    /// Tokens scored per second.
    #[serde(deserialize_with = "null_is_nan")]
    pub tokens_per_second: f64,
    /// Checksum of weights and moments after the step, in hexadecimal; a run on a GPU does not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The reason if the update was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A validation by protocol `elbo`, `bound` for masked diffusion, or `nll` if the model infers no latents.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ValidationLine {
    /// After which step.
    pub step: u64,
    /// The protocol.
    pub protocol: Protocol,
    /// Sequences scored.
    pub sequences: u64,
    /// What they cost.
    #[serde(flatten)]
    pub cost: Cost,
    /// Standard error of the loss over the draws; the sequences are the same every time.
    #[serde(deserialize_with = "null_is_nan")]
    pub draw_error: f64,
    /// NLL and KL together, in nats per sequence.
    #[serde(deserialize_with = "null_is_nan")]
    pub nats_per_sequence: f64,
    /// Nats per sequence.
    #[serde(deserialize_with = "null_is_nan")]
    pub kl_per_sequence: f64,
    /// The exact cost under the text's true source, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact_nats_per_sequence: Option<f64>,
}

/// A problem that does not stop the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleLine {
    /// After which step.
    pub step: u64,
    /// What it is.
    pub trouble: Trouble,
    /// The observation, and possible remedies.
    pub message: String,
}

/// An unconditional sample at temperature 1, always with the same noise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleLine {
    /// After which step.
    pub step: u64,
    /// The text: what `ltm generate --unconditional` writes from this step's checkpoint begins with it. It ends after
    /// 100 tokens at most.
    pub sample: String,
}

/// Two ways in which latent variables are known to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trouble {
    /// The posteriors equal the prior: the decoder ignores its latents.
    LatentsIgnored,
    /// The KL grows while the bound gets worse: the fast steps make a random walk, and the decoder adapts to it.
    KlRunaway,
}

impl Line {
    /// The step that it is about.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(line) => line.step,
            Self::Validation(line) => line.step,
            Self::Trouble(line) => line.step,
            Self::Sample(line) => line.step,
        }
    }

    /// Its entries as in the file, without the step; `null` is a non-finite number.
    pub fn entries(&self) -> Map<String, Value> {
        let Ok(Value::Object(mut entries)) = serde_json::to_value(self) else { unreachable!("a line is an object") };
        entries.remove("step");
        entries
    }
}

/// The validation with the least loss among those of the steps in `steps`, the first of equals, without non-finite losses.
pub(super) fn best<'a>(lines: &'a [Line], steps: &[u64]) -> Option<&'a ValidationLine> {
    let validations = lines.iter().filter_map(|line| match line {
        Line::Validation(line) if line.cost.loss.is_finite() && steps.contains(&line.step) => Some(line),
        _ => None,
    });
    validations.min_by(|a, b| a.cost.loss.total_cmp(&b.cost.loss))
}

impl StepLine {
    /// `state` is the trainer's checksum after the step.
    pub(super) fn new(report: &StepReport, state: Option<u64>, seconds: f64) -> Self {
        let (nll, kl) = (report.nll, report.kl);
        Self {
            step: report.step,
            cost: Cost::of(nll + kl, nll, kl, report.tokens, report.bytes as f64),
            tokens: report.tokens,
            grad_norm: report.grad_norm,
            rate: report.rate,
            fast_rate: report.fast_rate,
            seconds,
            tokens_per_second: report.tokens as f64 / seconds,
            state: state.map(|sum| format!("{sum:016x}")),
            skipped: report.skipped.clone(),
        }
    }
}

impl ValidationLine {
    pub(super) fn new(step: u64, protocol: Protocol, total: &Total, excess: Option<Excess>) -> Self {
        let sequences = total.sequences as f64;
        Self {
            step,
            protocol,
            sequences: total.sequences,
            cost: Cost::of(total.nats, total.nll, total.kl, total.tokens, total.bytes),
            draw_error: total.draw_error() / total.tokens as f64,
            nats_per_sequence: total.nats / sequences,
            kl_per_sequence: total.kl / sequences,
            exact_nats_per_sequence: excess.map(|excess| excess.exact),
        }
    }
}
