//! The ledger: what a text's tokens cost a model, by what they tell; and whether its own texts keep their facts.
//!
//! A bound alone does not show whether latents remember. So for stories of the embedded corpus the ledger splits the
//! bound: new facts, repeated facts, and the rest, beside the least possible cost of the same tokens and that of the best
//! reader who sees only as far back as the decoder ([`Corpus::token_nats`]). It counts how many facts generated stories
//! keep, and measures how many bits of each fact can be read from the latents. For any text it shows what the first,
//! second and later mentions of names and other words cost.

mod kept;
mod layout;
mod probe;
mod tally;
mod words;

pub use kept::{Kept, half};
pub use layout::{Book, Json, Named, main_tables, sentence, tables};
pub use tally::{Entry, Tally};

use crate::reading::{Reader, Reading};
use crate::text::tokenizer;
use engine::{Error, Result};
use ltm::config::{Config, DataConfig};
use ltm::corpus::{Class, Corpus, FACTS};
use ltm::data::Source;
use ltm::data::sources::SampleInfo;
use ltm::evaluate::{Mean, Protocol, SequenceScore};
use ltm::run::{Loaded, REPORT_SEED, Run, stories};
use probe::Probe;
use std::ops::Range;
use std::sync::Arc;

/// Seed of the stories that the probe learns from: no run trains on them, and no number is reported on them.
const PROBE_SEED: u64 = REPORT_SEED + 1;

/// Options of a ledger.
#[derive(Clone, Debug)]
pub struct Options {
    /// Fast steps T.
    pub steps: usize,
    /// Draws S, at least 1.
    pub draws: usize,
    /// Number of sequences, from the start of the source.
    pub sequences: u64,
    /// Stories to generate of each kind; 0 for none.
    pub stories: u32,
    /// Stories that the probe learns from; 0 for no probe.
    pub probe: u64,
}

impl Options {
    /// T as trained, and as many stories as a ledger of `sequences` needs.
    pub fn new(config: &Config, sequences: u64, draws: usize) -> Self {
        Self { steps: config.fast.steps, draws, sequences, stories: 32, probe: 512 }
    }
}

/// Checks that two runs read the same tokens, so that their ledgers can be compared.
///
/// # Errors
/// If they do not.
pub fn check_same_text(run: &Run, other: &Run) -> Result<()> {
    let [a, b] = [run, other].map(|run| (run.config.model.seq, &run.config.data, &run.config.corpus));
    let form = |data: &DataConfig| (data.tokenizer, data.chunking);
    if (a.0, form(a.1), a.2) == (b.0, form(b.1), b.2) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{} and {} read different tokens: to compare them, train both with the same model.seq, data.tokenizer, data.chunking and data.corpus",
        run.path.display(),
        other.path.display()
    )))
}

/// A kind of mention of a word, in any text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// Whether it is a name.
    pub is_name: bool,
    /// 1 or 2; 3 for all later mentions.
    pub number: usize,
}

/// The ledger of a model.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The cost of every sequence: the bound `elbo`, or exact.
    pub scores: Vec<SequenceScore>,
    /// The same by the bound `iwae`; nothing for a model that infers no latents.
    pub iwae: Vec<SequenceScore>,
    /// The tokens of stories of the embedded corpus, and what its own stories show.
    pub stories: Option<Stories>,
    /// What the first token of a word costs.
    pub first_tokens: Tally<Word>,
    /// What the other tokens of a word cost; counted by words.
    pub later_tokens: Tally<Word>,
    /// What the first token of a repeated word costs, by its distance from the last mention's: `true` for names, then the number
    /// of the bin, see [`distances`].
    pub by_distance: Tally<(bool, usize)>,
    /// What the first token of a word in the second half of a sequence costs, with latents inferred from the first half. So
    /// this cost needs no KL. Nothing for stories of the embedded corpus.
    pub second_halves: Tally<Word>,
}

/// The ledger of stories of the embedded corpus.
#[derive(Clone, Debug)]
pub struct Stories {
    /// How far the decoder sees back, in bytes.
    pub reach: usize,
    /// Number of values of every fact.
    pub values: usize,
    /// What the model pays.
    pub model: Tally<Class>,
    /// What the source itself would pay, the least possible.
    pub truth: Tally<Class>,
    /// What the best reader without memory pays.
    pub floor: Tally<Class>,
    /// Facts kept in stories without a prompt, and after one.
    pub kept: Option<[Kept; 2]>,
    /// Bits of every fact in the latents.
    pub bits: Option<[Mean; FACTS.len()]>,
}

impl Ledger {
    /// The ledger of the first sequences of `source`; calls `progress` with the work done and the total. If they are stories
    /// of the embedded corpus, the model also writes some, and a probe reads its latents.
    ///
    /// # Errors
    /// Settings that contradict each other, too little memory, sequences that cannot be read, costs that are not finite.
    pub fn new(
        model: &mut Loaded,
        source: &Arc<dyn Source>,
        options: &Options,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let config = model.config.clone();
        let sequences = source.samples().map_or(options.sequences, |samples| samples.min(options.sequences));
        let corpus = is_corpus(&**source, &config)?.then(|| Corpus::of(&config)).transpose()?;
        let probed = if config.model.kind.infers() && corpus.is_some() { options.probe } else { 0 };
        let written = if corpus.is_some() { options.stories } else { 0 };
        let halved = if corpus.is_some() { 0 } else { sequences };
        let work = sequences + halved + probed + 2 * u64::from(written);
        let mut reader = Reader::new(model, options.steps, options.draws)?;
        let readings = reader.read(source, sequences, |done| progress(done, work))?;
        let Some(corpus) = corpus else {
            let mut reader = Reader::by(Protocol::Prefix, model, options.steps, options.draws)?;
            let second_halves = reader.read(source, sequences, |done| progress(sequences + done, work))?;
            return Self::words(&readings, &second_halves, &config);
        };
        let mut ledger = Self::words(&readings, &[], &config)?;
        let texts = texts(&readings, &config)?;
        let mut stories = Stories::costs(&readings, &texts, &corpus, &config)?;
        if probed > 0 {
            stories.bits =
                Some(bits(&mut reader, &readings, &texts, &corpus, probed, |done| progress(sequences + done, work))?);
        }
        if written > 0 {
            let mut done = sequences + probed;
            let kept = kept::write(model, &corpus, options.steps, written, || {
                done += 1;
                progress(done, work);
            });
            stories.kept = Some(kept?);
        }
        ledger.stories = Some(stories);
        Ok(ledger)
    }

    /// The part that every text has, from readings of whole sequences and, if there are any, of their second halves.
    fn words(readings: &[Reading], second_halves: &[Reading], config: &Config) -> Result<Self> {
        let [mut first_tokens, mut later_tokens, mut in_second] = [(); 3].map(|()| Tally::new(readings.len()));
        let mut by_distance = Tally::new(readings.len());
        let end = tokenizer(config.data.tokenizer).end();
        for (i, (reading, (text, places))) in readings.iter().zip(texts(readings, config)?).enumerate() {
            let ends = reading.tokens.last().is_some_and(|(token, _)| *token == end);
            let second = second_halves.get(i).map_or(&[][..], |reading| &reading.tokens);
            let first_half = reading.tokens.len() - second.len();
            // The token with a byte.
            let token_at = |byte: usize| places.partition_point(|place| place.end <= byte);
            for mention in words::mentions(&text, [reading.begins, ends]) {
                let (first, last) = (token_at(mention.at.start), token_at(mention.at.end - 1));
                let word = Word { is_name: mention.is_name, number: mention.number.min(3) };
                first_tokens.add(i, word, reading.tokens[first].1, 1.0);
                let later = reading.tokens[first + 1..=last].iter().map(|(_, nats)| nats).sum();
                later_tokens.add(i, word, later, 1.0);
                if first >= first_half {
                    in_second.add(i, word, second[first - first_half].1, 1.0);
                }
                if let Some(before) = mention.last {
                    by_distance.add(i, (mention.is_name, bin(first - token_at(before))), reading.tokens[first].1, 1.0);
                }
            }
        }
        let scores = readings.iter().map(|reading| reading.score.clone()).collect();
        let iwae = readings.iter().filter_map(|reading| reading.iwae.clone()).collect();
        Ok(Self { scores, iwae, stories: None, first_tokens, later_tokens, by_distance, second_halves: in_second })
    }

    /// The cost of the sequences, with what an oracle is told.
    pub fn nats(&self) -> Entry {
        Entry(self.scores.iter().map(|score| [score.nats + score.told, score.tokens as f64]).collect())
    }

    /// The part of it that is the cost of the text once the latents are known.
    pub fn text(&self) -> Entry {
        Entry(self.scores.iter().map(|score| [score.nll, score.tokens as f64]).collect())
    }

    /// The part of it that is the cost of the latents: the KL, or what an oracle is told.
    pub fn latents(&self) -> Entry {
        Entry(self.scores.iter().map(|score| [score.kl + score.told, score.tokens as f64]).collect())
    }
}

impl Stories {
    fn costs(readings: &[Reading], texts: &[Text], corpus: &Corpus, config: &Config) -> Result<Self> {
        let reach = config.model.reach();
        let [mut model, mut truth, mut floor] = std::array::from_fn(|_| Tally::new(readings.len()));
        for (i, (reading, (text, _))) in readings.iter().zip(texts).enumerate() {
            let [least, without_memory] = [usize::MAX, reach].map(|window| corpus.token_nats(text, window));
            let (Some(least), Some(without_memory)) = (least, without_memory) else {
                return Err(Error::new(format!("sequence {i} is no story of the run's data.corpus settings")));
            };
            for (at, class) in corpus.classes(text).into_iter().enumerate() {
                model.add(i, class, reading.tokens[at].1, 1.0);
                truth.add(i, class, least[at], 1.0);
                floor.add(i, class, without_memory[at], 1.0);
            }
        }
        Ok(Self { reach, values: corpus.values(), model, truth, floor, kept: None, bits: None })
    }
}

/// Whether the source's samples are stories of the embedded corpus.
fn is_corpus(source: &dyn Source, config: &Config) -> Result<bool> {
    let mut places = [(); 2].map(|()| vec![0; config.model.seq]);
    let [tokens, targets] = &mut places;
    let SampleInfo { nats, .. } = source.fill(0, tokens, targets)?;
    Ok(nats.is_some())
}

/// The bytes of a text, and those of each of its tokens.
type Text = (Vec<u8>, Vec<Range<usize>>);

fn texts(readings: &[Reading], config: &Config) -> Result<Vec<Text>> {
    let tokenizer = tokenizer(config.data.tokenizer);
    let text = |reading: &Reading| {
        let (mut text, mut places) = (Vec::new(), Vec::new());
        for &(token, _) in &reading.tokens {
            let start = text.len();
            text.extend(tokenizer.decode(&[token])?);
            places.push(start..text.len());
        }
        Ok((text, places))
    };
    readings.iter().map(text).collect()
}

/// Bits of every fact that a probe reads from the latents of the stories read. It learns from so many others.
fn bits(
    reader: &mut Reader<'_>,
    readings: &[Reading],
    texts: &[Text],
    corpus: &Corpus,
    count: u64,
    progress: impl FnMut(u64),
) -> Result<[Mean; FACTS.len()]> {
    let learned = reader.means(&stories(&reader.model.config, PROBE_SEED, count)?, count, progress)?;
    let probe = Probe::new(learned);
    let known: Vec<_> = (0..count as u32).map(|i| facts(corpus, &corpus.document(PROBE_SEED, i).bytes)).collect();
    let values: Vec<_> = texts.iter().map(|(text, _)| facts(corpus, text)).collect();
    let means: Vec<Vec<f64>> = readings.iter().map(|reading| reading.means.clone()).collect();
    Ok(std::array::from_fn(|fact| {
        let [known, values] = [&known, &values].map(|all| all.iter().map(|facts| facts[fact]).collect::<Vec<_>>());
        probe.bits(&known, &means, &values, corpus.values())
    }))
}

/// The number of the value of every fact that a story mentions.
fn facts(corpus: &Corpus, text: &[u8]) -> [Option<usize>; FACTS.len()] {
    let mut facts = [None; FACTS.len()];
    for (fact, _, word) in corpus.mentions(text) {
        facts[fact] = FACTS[fact].1.split(' ').position(|value| value == word);
    }
    facts
}

/// The bin of a distance of at least 1 token: up to 8, 16, 32 and so on.
fn bin(distance: usize) -> usize {
    (distance.div_ceil(8).next_power_of_two().ilog2()) as usize
}

/// The distances in a bin, in tokens.
fn distances(bin: usize) -> (usize, usize) {
    (if bin == 0 { 1 } else { (4 << bin) + 1 }, 8 << bin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use autograd::Store;
    use engine::{DType, Device};
    use ltm::config::Work;
    use ltm::json;
    use ltm::model::Params;
    use ltm::run::NewFolder;

    /// A run of an untrained model.
    fn run(folder: &std::path::Path, kind: &str) -> Run {
        let mut config = Config::preset("demo").unwrap();
        config.set_all(&format!("model.kind={kind} model.dim=16 model.heads=2 train.batch=2 fast.steps=2")).unwrap();
        let config = config.resolved().unwrap();
        let mut store = Store::new(Device::CPU);
        let params = Params::new(&config.model, DType::F32, &mut store);
        params.init(&mut store, 5);
        Run::create_with_weights(&NewFolder::at(&folder.join(kind)).unwrap(), &config, &store, &params).unwrap()
    }

    #[test]
    fn the_classes_add_up() {
        let folder = tempfile::tempdir().unwrap();
        for kind in ["ltm", "oracle", "ar"] {
            let run = run(folder.path(), kind);
            let mut model = run.load(&Device::CPU, Work::Evaluation).unwrap();
            let source = stories(&run.config, REPORT_SEED, 3).unwrap();
            let options = Options { steps: 2, draws: 2, sequences: 3, stories: 1, probe: 3 };
            let mut last = (0, 1);
            let ledger = Ledger::new(&mut model, &source, &options, |done, work| last = (done, work)).unwrap();
            assert_eq!(last.0, last.1, "{kind}");
            let stories = ledger.stories.as_ref().unwrap();
            let sum = |tally: &Tally<Class>| tally.of(|_| true).per_sequence().mean;
            let [nats, latents] = [ledger.nats(), ledger.latents()].map(|entry| entry.per_sequence().mean);
            let all = sum(&stories.model) + latents;
            assert!((all - nats).abs() < 1e-4 * all, "{kind}: {all} {nats}");
            assert_eq!(latents > 0.0, kind != "ar");
            let corpus = Corpus::of(&run.config).unwrap();
            for (tally, window) in [(&stories.truth, usize::MAX), (&stories.floor, run.config.model.reach())] {
                let nats = |i| corpus.windowed_nats(&corpus.document(REPORT_SEED, i).bytes, window).unwrap();
                let wanted = (0..3).map(nats).sum::<f64>() / 3.0;
                assert!((sum(tally) - wanted).abs() < 1e-6, "{kind}");
            }
            assert_eq!(stories.bits.is_some(), kind == "ltm");
            assert!(stories.kept.as_ref().is_some_and(|kept| kept[0].0.len() == 1));
            let json = serde_json::to_value(Book(&[(kind, &ledger), ("other", &ledger)]).json()).unwrap();
            let nats = |key: &str| json[key]["value"].as_f64().unwrap();
            // A letter that begins a sentence also tells which sentence it is, with and without memory.
            let forgotten = nats("floor_repeat_nats") - nats("truth_repeat_nats");
            assert!(nats("truth_repeat_nats") > 0.0 && forgotten > 1.5 && forgotten < 16f64.ln() + 1e-6, "{json}");
            assert!(nats("repeat_nats") > 4.0, "{json}");
            assert_eq!(json["against"][0]["words"]["names, second"]["run_less"]["value"], 0.0);
            assert_eq!(tables(&[(kind, &ledger), ("other", &ledger)]).len(), 6);
            let mut ledger = ledger;
            ledger.stories.as_mut().unwrap().kept = Some([vec![[1.0, 4.0]], vec![[2.0, 4.0], [1.0, 0.0]]].map(Kept));
            let said = sentence(&ledger, Some(("without latents", &ledger))).unwrap();
            assert!(
                said.contains("story it kept 75 of 100 facts that were out of sight; without latents 75. In"),
                "{said}"
            );
            assert!(said.contains("own it kept 25 of 100") && said.contains("keep 6 of 100"), "{said}");
            ledger.stories.as_mut().unwrap().kept = Some([vec![[0.0; 2]], vec![[0.0; 2]]].map(Kept));
            assert_eq!(sentence(&ledger, None), None);
            json::line(&json);
        }
        let [a, mut b] = ["ltm", "ar"].map(|kind| Run::open(&folder.path().join(kind)).unwrap());
        check_same_text(&a, &b).unwrap();
        b.config.corpus.values = 5;
        let error = check_same_text(&a, &b).unwrap_err().to_string();
        assert!(error.contains("data.corpus"), "{error}");
    }

    /// Tokens of several bytes; the costs say where they come from.
    #[test]
    fn words_are_found_in_tokens() {
        let mut config = Config::preset("demo").unwrap();
        config.set_all("data.tokenizer=gpt2").unwrap();
        let text = "So the winter came, and Emma saw Finn. In the winter Emma slept.";
        let mut tokens = Vec::new();
        tokenizer(config.data.tokenizer).encode(text.as_bytes(), &mut tokens).unwrap();
        let tokens: Vec<(u16, f64)> = tokens.into_iter().zip(0..).map(|(token, i)| (token, f64::from(i))).collect();
        let (count, score) = (tokens.len(), SequenceScore::default());
        let reading = Reading { tokens, kl: None, iwae: None, score, begins: true, means: Vec::new() };
        // The second half is 9 to 15, which costs a hundred times as much.
        let tokens = reading.tokens[9..].iter().map(|&(token, nats)| (token, 100.0 * nats)).collect();
        let second =
            Reading { tokens, kl: None, iwae: None, score: SequenceScore::default(), begins: true, means: Vec::new() };
        let ledger = Ledger::words(&[reading], &[second], &config).unwrap();
        let nats = |is_name, number| {
            let entry = ledger.first_tokens.of(|word| *word == Word { is_name, number });
            (entry.tokens(), entry.0[0][0])
        };
        // So| the| winter| came|,| and| Emma| saw| Finn|.| In| the| winter| Emma| slept|.
        assert_eq!(count, 16);
        assert_eq!((nats(true, 1), nats(true, 2), nats(true, 3)), ((2.0, 6.0 + 8.0), (1.0, 13.0), (0.0, 0.0)));
        assert_eq!((nats(false, 1), nats(false, 2)), ((3.0, 2.0 + 3.0 + 14.0), (1.0, 12.0)));
        assert!(ledger.later_tokens.of(|_| true).0[0][0] == 0.0);
        let second = |is_name| ledger.second_halves.of(|word| word.is_name == is_name).0[0];
        assert_eq!((second(true), second(false)), ([1300.0, 1.0], [1200.0 + 1400.0, 2.0]));
        assert_eq!(ledger.by_distance.kinds().collect::<Vec<_>>(), [&(false, 1), &(true, 0)]);
        assert!((1..9).all(|n| bin(n) == 0) && bin(9) == 1 && bin(16) == 1 && bin(17) == 2 && bin(33) == 3);
        assert_eq!([0, 1, 2].map(distances), [(1, 8), (9, 16), (17, 32)]);
    }
}
