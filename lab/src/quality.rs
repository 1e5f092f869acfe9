//! Automatic measures of generated text: how varied it is, how much it repeats itself, and how likely it is under
//! another model.
//!
//! Statistics count words separated by spaces, so that models with different tokenizers can be compared. All of them
//! depend on the amount of text, so compare only the same number of texts of the same length. Low perplexity is not
//! quality, because a text that repeats itself is likely. So these numbers belong together.

use crate::eval;
use crate::text::{tokenizer, writer};
use crate::transcript::{Origin, Transcript};
use engine::{Error, Result, file};
use ltm::config::Chunking;
use ltm::data::Tokenizer;
use ltm::data::sources::{IGNORED, SampleInfo, Source};
use ltm::evaluate::Protocol;
use ltm::generate::{Writing, front};
use ltm::hash::sha256_file;
use ltm::run::{Loaded, Run};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Length of a word sequence that counts as repeated when it occurs again.
pub const REPEATED: usize = 4;

/// Draws per text if the judge has latents.
const DRAWS: usize = 16;

/// What to generate.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// A file with one prompt per line; without it, texts have no prompt.
    pub prompts: Option<PathBuf>,
    /// Number of texts, per prompt if there are prompts.
    pub samples: u32,
    /// Sampling options.
    #[serde(flatten)]
    pub writing: Writing,
}

/// Everything that the texts depend on.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Command and weights.
    #[serde(flatten)]
    pub origin: Origin,
    /// The options.
    #[serde(flatten)]
    pub options: Options,
    /// SHA-256 of the file of prompts.
    pub prompts_sha256: Option<String>,
}

/// A text and its prompt: a line of the transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// The prompt, if there was one.
    pub prompt: Option<String>,
    /// The generated text.
    pub text: String,
}

/// The texts that a model generated.
pub struct Written {
    /// The settings.
    pub settings: Settings,
    /// The texts, those of the first prompt first.
    pub texts: Vec<Text>,
    /// The file that keeps them.
    pub file: PathBuf,
}

/// Generates texts with the model of `run` for `command`, into a new file at `transcript`, by default in the run's
/// folder. Calls `progress` with the number of texts done and the total.
///
/// # Errors
/// If prompts cannot be read or are missing, or texts are too many, and those of [`Writer`](ltm::generate::Writer).
pub fn write(
    run: &Run,
    model: &mut Loaded,
    options: Options,
    command: &str,
    transcript: Option<&Path>,
    mut progress: impl FnMut(u64, u64),
) -> Result<Written> {
    let prompts = options.prompts.as_deref().map(read_prompts).transpose()?;
    let samples = options.samples;
    let all = u64::from(samples) * prompts.as_ref().map_or(1, |prompts| prompts.len() as u64);
    let mut writer = writer(model, options.writing.clone(), all)?;
    let settings = Settings {
        origin: Origin::new(run, model, command),
        prompts_sha256: options.prompts.as_deref().map(sha256_file).transpose()?,
        options,
    };
    let mut transcript = Transcript::create(transcript, &run.path, "quality", &settings)?;
    let mut texts = Vec::new();
    for sample in 0..all as u32 {
        let prompt = prompts.as_ref().map(|prompts| prompts[(sample / samples) as usize].clone());
        let text = writer.whole(&mut model.store, prompt.as_deref(), sample)?;
        texts.push(Text { prompt, text });
        transcript.keep(&texts.last())?;
        progress(u64::from(sample) + 1, all);
    }
    Ok(Written { settings, texts, file: transcript.path })
}

/// The lines of a file that are not blank.
fn read_prompts(path: &Path) -> Result<Vec<String>> {
    let text = file::text(path)?;
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_string).collect();
    if lines.is_empty() { Err(Error::new(format!("{} has no prompt", path.display()))) } else { Ok(lines) }
}

/// The measurements.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// Everything that the texts depend on.
    pub settings: Settings,
    /// The run folder of the judge.
    pub judge: PathBuf,
    /// SHA-256 of its weights.
    pub judge_weights_sha256: String,
    /// `conditional` if there were prompts, else `unconditional`.
    pub kind: &'static str,
    /// Number of texts.
    pub texts: usize,
    /// How varied they are.
    #[serde(flatten)]
    pub variety: Variety,
    /// The judge's protocol: a bound, or exact.
    pub protocol: Protocol,
    /// The kind of number that it gives.
    #[serde(skip)]
    pub status: String,
    /// exp of the judge's nats per token.
    pub perplexity: f64,
    /// The same per byte, in bits.
    pub bits_per_byte: f64,
    /// Number of texts longer than the judge reads, of which only the beginning was scored.
    #[serde(skip)]
    pub cut: usize,
}

/// Checks that the model of a run can judge.
///
/// # Errors
/// Masked diffusion cannot: its bound is of whole texts with their ends, and generated text has none.
pub fn check_judge(run: &Run) -> Result<()> {
    let kind = run.config.model.kind;
    match kind.method() {
        None => Ok(()),
        Some(_) => Err(Error::usage(format!(
            "model.kind = {kind} fills in masks and cannot judge: name another run with --judge"
        ))),
    }
}

/// Scores texts with the model of the run `judge`, each given its prompt; calls `progress` with the number done and the
/// total.
///
/// # Errors
/// If texts do not fit the model, see [`Judged`], or scores are not finite.
pub fn judge(judge: &Run, model: &mut Loaded, written: &Written, progress: impl FnMut(u64, u64)) -> Result<Quality> {
    let config = model.config.clone();
    let source =
        Judged::new(&written.texts, &*tokenizer(config.data.tokenizer), config.data.chunking, config.model.seq)?;
    let cut = source.cut;
    let protocol = Protocol::of(config.model.kind)[0];
    let source: Arc<dyn Source> = Arc::new(source);
    let options = eval::Options { protocols: vec![protocol], steps: config.fast.steps, samples: DRAWS, limit: None };
    let rows = eval::evaluate(model, &source, &options, progress)?;
    let figures = &rows[0].figures;
    Ok(Quality {
        settings: written.settings.clone(),
        judge: judge.path.clone(),
        judge_weights_sha256: model.weights.clone(),
        kind: if written.settings.options.prompts.is_some() { "conditional" } else { "unconditional" },
        texts: written.texts.len(),
        variety: Variety::of(written.texts.iter().map(|text| text.text.as_str())),
        protocol,
        status: figures.status.clone(),
        perplexity: figures.perplexity,
        bits_per_byte: figures.bits_per_byte,
        cut,
    })
}

/// How varied texts are.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Variety {
    /// Words in all.
    pub words: usize,
    /// Entropy of the words' frequencies over all texts, in bits.
    pub entropy_bits: f64,
    /// Share of the sequences of [`REPEATED`] words that occurred earlier in the same text (as in Welleck et al., arXiv
    /// 1908.04319); 0 if all texts are shorter.
    pub repetition: f64,
    /// Distinct sequences of 1, 2 and 3 words as a share of all such sequences, over all texts (Li et al., arXiv
    /// 1510.03055); 0 if there is none.
    pub distinct: [f64; 3],
}

impl Variety {
    /// Measures these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts: Vec<Vec<&str>> = texts.into_iter().map(|text| text.split_whitespace().collect()).collect();
        let words = texts.iter().map(Vec::len).sum();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        texts.iter().flatten().for_each(|word| *counts.entry(word).or_default() += 1);
        // In a fixed order, because a sum of floats depends on it.
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort_unstable();
        let entropy_bits = counts.iter().map(|&n| n as f64 / words as f64).map(|p| -p * p.log2()).sum::<f64>();
        let runs = |n: usize| texts.iter().flat_map(move |text| text.windows(n));
        let once: usize = texts.iter().map(|text| different(text.windows(REPEATED))).sum();
        let repetition = 1.0 - share(once, runs(REPEATED).count()).unwrap_or(1.0);
        let distinct = [1, 2, 3].map(|n| share(different(runs(n)), runs(n).count()).unwrap_or(0.0));
        Self { words, entropy_bits, repetition, distinct }
    }
}

fn different<T: Hash + Eq>(items: impl Iterator<Item = T>) -> usize {
    items.collect::<HashSet<_>>().len()
}

fn share(some: usize, all: usize) -> Option<f64> {
    (all > 0).then(|| some as f64 / all as f64)
}

/// Texts for a model to score, one per sequence. Each is scored given its prompt, if any, up to the model's sequence
/// length.
struct Judged {
    /// Inputs and targets, with their facts.
    samples: Vec<(Vec<i32>, Vec<i32>, SampleInfo)>,
    cut: usize,
}

impl Judged {
    /// Texts without a token are left out.
    ///
    /// # Errors
    /// If a prompt leaves no space for its text, or there is no text.
    fn new(texts: &[Text], tokenizer: &dyn Tokenizer, chunking: Chunking, sequence: usize) -> Result<Self> {
        let mut samples = Vec::new();
        let mut cut = 0;
        for (i, Text { prompt, text }) in texts.iter().enumerate() {
            let mut ids = front(tokenizer, chunking)?;
            tokenizer.encode(prompt.as_deref().unwrap_or_default().as_bytes(), &mut ids)?;
            let given = ids.len();
            tokenizer.encode(text.as_bytes(), &mut ids)?;
            if ids.len() == given {
                continue;
            }
            if given > sequence {
                return Err(Error::usage(format!(
                    "the prompt of text {i} has {given} tokens, but the judge reads only {sequence}: use shorter \
                     prompts"
                )));
            }
            cut += usize::from(ids.len() > sequence + 1);
            ids.truncate(sequence + 1);
            let (last, scored) = (ids.len() - 1, (ids.len() - given) as u32);
            let bytes = tokenizer.decode(&ids[given..])?.len() as u64;
            let ids: Vec<i32> = ids.into_iter().map(i32::from).collect();
            let mut tokens = vec![i32::from(tokenizer.end()); sequence];
            let mut targets = vec![IGNORED; sequence];
            tokens[..last].copy_from_slice(&ids[..last]);
            targets[given - 1..last].copy_from_slice(&ids[given..]);
            samples.push((
                tokens,
                targets,
                SampleInfo { id: samples.len() as u32, scored, bytes, ..SampleInfo::default() },
            ));
        }
        if samples.is_empty() {
            return Err(Error::new("there is no text to score: all texts are empty"));
        }
        Ok(Self { samples, cut })
    }
}

impl Source for Judged {
    fn samples(&self) -> Option<u64> {
        Some(self.samples.len() as u64)
    }

    fn fill(&self, index: u64, tokens: &mut [i32], targets: &mut [i32]) -> Result<SampleInfo> {
        let (inputs, wanted, info) = &self.samples[index as usize];
        tokens.copy_from_slice(inputs);
        targets.copy_from_slice(wanted);
        Ok(*info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::data::tokenizer::Bytes;

    #[test]
    fn variety_by_hand() {
        let v = Variety::of(["a b a b a b", "a  c\n"]);
        assert_eq!(v.words, 8);
        // Frequencies 4, 3 and 1 of 8.
        assert!((v.entropy_bits - (0.5 + 0.375 * (8.0f64 / 3.0).log2() + 0.125 * 3.0)).abs() < 1e-12);
        // Of abab, baba, abab the last one came before.
        assert!((v.repetition - 1.0 / 3.0).abs() < 1e-12);
        // Pairs ab, ba and ac of six; aba, bab of four.
        assert_eq!(v.distinct, [3.0 / 8.0, 0.5, 0.5]);
        let none = Variety::of(["", "one"]);
        assert_eq!((none.repetition, none.distinct, none.entropy_bits), (0.0, [1.0, 0.0, 0.0], 0.0));
        assert_eq!(Variety::of([]), Variety::default());
    }

    #[test]
    fn texts_are_scored_behind_their_prompts() {
        let pair = |prompt: &str, text: &str| Text { prompt: Some(prompt.into()), text: text.into() };
        let texts = [pair("ab", "cd"), Text { prompt: None, text: "efghijkl".into() }, pair("x", "")];
        let judged = Judged::new(&texts, &Bytes, Chunking::Documents, 6).unwrap();
        assert_eq!((judged.samples(), judged.cut), (Some(2), 1));
        let (mut tokens, mut targets) = ([0; 6], [0; 6]);
        let info = judged.fill(0, &mut tokens, &mut targets).unwrap();
        assert_eq!((tokens, targets), ([256, 97, 98, 99, 257, 257], [-1, -1, 99, 100, -1, -1]));
        assert_eq!((info.scored, info.bytes), (2, 2));
        let info = judged.fill(1, &mut tokens, &mut targets).unwrap();
        assert_eq!((tokens[1], targets, info.scored), (101, [101, 102, 103, 104, 105, 106], 6));
        let error = |texts: &[Text]| Judged::new(texts, &Bytes, Chunking::Windows, 6).err().unwrap().to_string();
        assert!(
            error(&[pair("abcdef", "g")]).contains("the prompt of text 0 has 7 tokens, but the judge reads only 6")
        );
        assert!(error(&[pair("a", "")]).contains("no text to score"));
    }
}
