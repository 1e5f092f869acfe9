//! What can be measured of generated text without a reader: how varied it is, how much it repeats itself, and how likely
//! another model finds it.
//!
//! Statistics are of words between blanks, so that models with different tokenizers can be compared. All of them depend on the
//! amount of text: only numbers from equally many texts of the same length can be compared. Low perplexity is not quality, since
//! a text that repeats itself is likely. Hence the numbers stand together.

use crate::eval;
use crate::text::{tokenizer, writer};
use crate::transcript::{Origin, Transcript};
use engine::{Error, Result, file};
use ltm::config::Chunking;
use ltm::data::Tokenizer;
use ltm::data::sources::{IGNORED, SampleInfo, Source};
use ltm::evaluate::Protocol;
use ltm::generate::{Writing, front};
use ltm::hash::sha256_files;
use ltm::run::{Loaded, Run};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Words in a row that count as repeated when they come again.
pub const REPEATED: usize = 4;

/// Draws per text where the judge has latents.
const DRAWS: usize = 16;

/// What to write.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// A file with a prompt a line; without, texts begin with nothing.
    pub prompts: Option<PathBuf>,
    /// Texts, for each prompt if there are prompts.
    pub samples: u32,
    /// How to write them.
    #[serde(flatten)]
    pub writing: Writing,
}

/// Everything that the texts depend on.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Command and weights.
    #[serde(flatten)]
    pub origin: Origin,
    /// What was asked for.
    #[serde(flatten)]
    pub options: Options,
    /// SHA-256 of the file of prompts.
    pub prompts_sha256: Option<String>,
    /// Fast steps of inference.
    pub fast_steps: usize,
}

/// A text and its prompt: a line of the transcript.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Text {
    /// The prompt, if there was one.
    pub prompt: Option<String>,
    /// What the model made of it.
    pub text: String,
}

/// What a model wrote.
pub struct Written {
    /// How.
    pub settings: Settings,
    /// The texts, those of the first prompt first.
    pub texts: Vec<Text>,
    /// The file that keeps them.
    pub file: PathBuf,
}

/// Lets the model of `run` write for `command`; the texts go to a new file at `transcript`, by default in the run's folder.
/// Calls `progress` with the number of texts done, of all.
///
/// # Errors
/// Prompts that cannot be read or are none, too many texts, and those of [`Writer`](ltm::generate::Writer).
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
        prompts_sha256: options.prompts.as_ref().map(|path| sha256_files(&[path])).transpose()?,
        fast_steps: options.writing.steps.unwrap_or(model.config.fast.steps),
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
    if lines.is_empty() { Err(Error::new(format!("{} holds no prompt", path.display()))) } else { Ok(lines) }
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    /// Everything that the texts depend on.
    pub settings: Settings,
    /// The folder of the run that judged.
    pub judge: PathBuf,
    /// SHA-256 of its weights.
    pub judge_weights_sha256: String,
    /// `conditional` if there were prompts, else `unconditional`.
    pub kind: &'static str,
    /// How many texts.
    pub texts: usize,
    /// How varied they are.
    #[serde(flatten)]
    pub variety: Variety,
    /// What the judge scored them by: a bound, or exactly.
    pub protocol: Protocol,
    /// exp of the judge's nats per token.
    pub perplexity: f64,
    /// The same per byte, in bits.
    pub bits_per_byte: f64,
    /// How many texts were longer than what the judge reads, and judged by their beginning.
    #[serde(skip)]
    pub cut: usize,
}

/// Lets the model of the run `judge` score texts, each given its prompt; calls `progress` with the number done, of all.
///
/// # Errors
/// Texts that do not fit the model, see [`Judged`], and scores that are not finite.
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
    /// Share of the runs of [`REPEATED`] words that stood in the same text before (as in Welleck et al., arXiv 1908.04319); 0
    /// if no text has so many words.
    pub repetition: f64,
    /// Different runs of 1, 2 and 3 words as a share of all such runs, over all texts (Li et al., arXiv 1510.03055); 0 if
    /// there is none.
    pub distinct: [f64; 3],
}

impl Variety {
    /// That of these texts.
    pub fn of<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let texts: Vec<Vec<&str>> = texts.into_iter().map(|text| text.split_whitespace().collect()).collect();
        let words = texts.iter().map(Vec::len).sum();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        texts.iter().flatten().for_each(|word| *counts.entry(word).or_default() += 1);
        // In a fixed order: a sum of floats depends on it.
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

/// Texts for a model to score, one a sequence: each is scored given its prompt, if it has one, as far as the model's sequence
/// reaches.
struct Judged {
    /// Inputs and targets, and what is known of them.
    samples: Vec<(Vec<i32>, Vec<i32>, SampleInfo)>,
    cut: usize,
}

impl Judged {
    /// Texts without a token are left out.
    ///
    /// # Errors
    /// A prompt that leaves no room for its text, and no text at all.
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
                    "the prompt of text {i} has {given} tokens, the judge reads {sequence}: use shorter prompts"
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
            samples.push((tokens, targets, SampleInfo { id: samples.len() as u32, scored, bytes, nats: None }));
        }
        if samples.is_empty() {
            return Err(Error::new("there is no text to judge: all of them are empty"));
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
        assert!(error(&[pair("abcdef", "g")]).contains("the prompt of text 0 has 7 tokens, the judge reads 6"));
        assert!(error(&[pair("a", "")]).contains("no text to judge"));
    }
}
