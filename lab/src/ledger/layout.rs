//! The ledger as tables, in a sentence, and as JSON.

use super::{Entry, Ledger, Stories, Tally, Word, distances};
use crate::table::{Table, digits, nats, plus_minus};
use ltm::corpus::{Class, FACTS};
use ltm::evaluate::Mean;
use serde::Serialize;
use std::collections::BTreeMap;

type Is = fn(&Class) -> bool;

/// What the tokens of a story tell: in words, and in the JSON output.
const CLASSES: [(&str, &str, Is); 6] = [
    ("new fact, first letter", "first", |class| matches!(class, Class::First(_))),
    ("repeated fact, first letter", "repeat", |class| matches!(class, Class::Repeat(_))),
    ("other letters of facts", "rest", |class| matches!(class, Class::Rest)),
    ("words drawn anew", "filler", |class| matches!(class, Class::Filler)),
    ("fixed words", "template", |class| matches!(class, Class::Template)),
    ("end", "end", |class| matches!(class, Class::End)),
];

/// Kinds of words and mentions.
const WORDS: [(&str, Word); 6] = [
    ("names, first mention", Word { is_name: true, number: 1 }),
    ("names, second", Word { is_name: true, number: 2 }),
    ("names, later", Word { is_name: true, number: 3 }),
    ("other words, first mention", Word { is_name: false, number: 1 }),
    ("other words, second", Word { is_name: false, number: 2 }),
    ("other words, later", Word { is_name: false, number: 3 }),
];

/// A ledger and its heading.
pub type Named<'a> = (&'a str, &'a Ledger);

/// A table with rows 0, 1, ….
type Rows = Table<'static, usize>;

fn rows(count: usize) -> Rows {
    static NUMBERS: [usize; 64] = {
        let mut numbers = [0; 64];
        let mut i = 0;
        while i < 64 {
            numbers[i] = i;
            i += 1;
        }
        numbers
    };
    Table::of(&NUMBERS[..count])
}

/// All tables, each with its caption, of models that read the same text. The first is compared with the others.
pub fn tables(models: &[Named<'_>]) -> Vec<(String, Rows)> {
    let mut tables = main_tables(models);
    if let Some(stories) = &models[0].1.stories {
        tables.insert(1, facts(models, stories));
    }
    if models[0].1.stories.is_none() {
        tables.push(whole(models));
    }
    tables.push(words(models, &format!("first token costs{ASIDE}"), |ledger| &ledger.first_tokens));
    tables.push(words(models, &format!("other tokens cost together{ASIDE}"), |ledger| &ledger.later_tokens));
    if models[0].1.by_distance.kinds().next().is_some() {
        tables.push(by_distance(models));
    }
    if models[0].1.second_halves.kinds().next().is_some() {
        let what = "first token costs in the second half of a sequence, with latents inferred from the first half: a cost \
                    without KL, which compares with a baseline's";
        tables.push(words(models, what, |ledger| &ledger.second_halves));
    }
    tables
}

/// Follows what the columns by mention show.
const ASIDE: &str = ", without the KL of latents inferred from the whole sequence";

/// What a sequence costs, with its latents.
fn whole(models: &[Named<'_>]) -> (String, Rows) {
    let table = rows(3).left("", |&i| ["text, given the latents", "latents: their KL", "sum"][i]);
    let entry = |ledger: &Ledger, i: usize| [Ledger::text, Ledger::latents, Ledger::nats][i](ledger);
    let caption = "What a sequence costs, in nats. Only the sum is a cost of the text: a bound if latents are inferred, else exact. \
                   The tables by mention leave the KL out, so they show where the latents help, not whether they pay";
    (caption.into(), compared(table, models, SEQUENCE, entry))
}

/// Those of the tables that show whether the latents remember: what the tokens of stories cost by what they tell, and the share of
/// facts kept; none for other text.
pub fn main_tables(models: &[Named<'_>]) -> Vec<(String, Rows)> {
    let Some(stories) = &models[0].1.stories else { return Vec::new() };
    std::iter::once(classes(models, stories)).chain(kept(models, stories)).collect()
}

/// The models with a ledger of stories.
fn with_stories<'a>(models: &[Named<'a>]) -> Vec<(&'a str, &'a Ledger, &'a Stories)> {
    models.iter().filter_map(|&(name, ledger)| Some((name, ledger, ledger.stories.as_ref()?))).collect()
}

/// The bound of a story, split by what its tokens tell.
fn classes(models: &[Named<'_>], first: &Stories) -> (String, Rows) {
    // After the classes come the latents, and the sum.
    let (latents, sum) = (CLASSES.len(), CLASSES.len() + 1);
    let mut table = rows(sum + 1).left("", |&i| match i {
        _ if i == latents => "latents",
        _ if i == sum => "sum",
        _ => CLASSES[i].0,
    });
    let sequences = models[0].1.scores.len() as f64;
    table = table.right("tokens", |&i| match CLASSES.get(i) {
        Some((.., is)) => digits(first.truth.of(is).tokens() / sequences, 1),
        None => String::new(),
    });
    for (name, tally) in [("truth", &first.truth), ("no memory", &first.floor)] {
        table = table.right(name, |&i| match CLASSES.get(i) {
            Some((.., is)) => digits(tally.of(is).per_sequence().mean, 2),
            None if i == latents => String::new(),
            None => digits(tally.of(|_| true).per_sequence().mean, 2),
        });
    }
    let entry = |ledger: &Ledger, i: usize| match (CLASSES.get(i), &ledger.stories) {
        (Some((.., is)), Some(stories)) => stories.model.of(is),
        _ if i == latents => ledger.latents(),
        _ => ledger.nats(),
    };
    table = compared(table, models, SEQUENCE, entry);
    let caption = format!(
        "The tokens of a story by what they tell, and what they cost together, in nats per story. truth: the least possible cost, that of their source. no memory: \
         the best reader who sees {} bytes back; only its sum is a floor, because a reader may shift cost between classes",
        first.reach
    );
    (caption, table)
}

/// Nats of the first letter of every fact.
fn facts(models: &[Named<'_>], first: &Stories) -> (String, Rows) {
    let models = with_stories(models);
    let is_new = |i: usize| move |class: &Class| matches!(class, Class::First(fact) if i == FACTS.len() || *fact == i);
    let is_repeat =
        |i: usize| move |class: &Class| matches!(class, Class::Repeat(fact) if i == FACTS.len() || *fact == i);
    let mut table = rows(FACTS.len() + 1).left("", |&i| FACTS.get(i).map_or("all", |(name, _)| name));
    table = table.right("new: truth", |&i| digits(first.truth.of(is_new(i)).per_token().mean, 2));
    for (name, _, stories) in &models {
        table = table.right(format!("new: {name}"), |&i| nats(stories.model.of(is_new(i)).per_token()));
    }
    table = table.right("repeated: truth", |&i| digits(first.truth.of(is_repeat(i)).per_token().mean, 2));
    table = table.right("repeated: no memory", |&i| digits(first.floor.of(is_repeat(i)).per_token().mean, 2));
    for (name, _, stories) in &models {
        table = table.right(format!("repeated: {name}"), |&i| nats(stories.model.of(is_repeat(i)).per_token()));
    }
    for (name, _, stories) in &models {
        if let Some(bits) = &stories.bits {
            table = table.right(format!("bits read in {name}"), |&i| match bits.get(i) {
                Some(bits) => nats(*bits),
                None => digits(bits.iter().map(|bits| bits.mean).sum::<f64>() / FACTS.len() as f64, 2),
            });
        }
    }
    let most = digits((first.values as f64).log2(), 2);
    let caption = format!(
        "What the first letter of a fact costs, in nats per mention; a letter that begins a sentence also tells which sentence it is. The cost of the latents comes on top. Bits of \
         {most} that a linear probe reads from the latents' means"
    );
    (caption, table)
}

/// The share of facts that generated stories keep.
fn kept(models: &[Named<'_>], first: &Stories) -> Option<(String, Rows)> {
    let mut table = rows(2).left("", |&i| ["in stories of its own", "after the first half of an unseen story"][i]);
    for (name, _, stories) in with_stories(models) {
        let kept = stories.kept.as_ref()?;
        table = table.right(name, |&i| {
            let ([kept, all], share) = (kept[i].counts(), kept[i].share());
            format!("{kept} of {all}: {}", plus_minus(share.mean, share.error, 3))
        });
    }
    table = table.right("by chance", |_| digits(1.0 / first.values as f64, 3));
    let caption = format!(
        "How many repeats of a fact have its first value, in text of the model at temperature 1. Only repeats whose last mention is more than \
         {} bytes back count; after the half of a story, only facts of that half",
        first.reach
    );
    Some((caption, table))
}

/// The mean of an entry, and that of its difference from another.
type Per = (fn(&Entry) -> Mean, fn(&Entry, &Entry) -> Mean);

const TOKEN: Per = (Entry::per_token, Entry::less);
const SEQUENCE: Per = (Entry::per_sequence, Entry::less_per_sequence);

/// Columns of a kind of entry: of every model, and the first minus each other.
fn compared(table: Rows, models: &[Named<'_>], per: Per, entry: impl Fn(&Ledger, usize) -> Entry) -> Rows {
    let (mean, less) = per;
    let first = models[0].1;
    models.iter().enumerate().fold(table, |table, (number, &(name, ledger))| {
        let table = table.right(name, |&i| nats(mean(&entry(ledger, i))));
        let minus = |&i: &usize| nats(less(&entry(first, i), &entry(ledger, i)));
        if number == 0 { table } else { table.right(format!("minus {name}"), minus) }
    })
}

/// Nats of some tokens of words by their mentions.
fn words(models: &[Named<'_>], what: &str, tally: impl Fn(&Ledger) -> &Tally<Word>) -> (String, Rows) {
    let entry = |ledger: &Ledger, i: usize| tally(ledger).of(|word| *word == WORDS[i].1);
    let table = rows(WORDS.len()).left("", |&i| WORDS[i].0);
    let table = compared(table.right("mentions", |&i| entry(models[0].1, i).tokens()), models, TOKEN, entry);
    let caption = format!(
        "What a word's {what}, in nats per mention, by how often the sequence has mentioned the word. Names are words with a capital inside \
         a sentence; other words have 4 letters or more"
    );
    (caption, table)
}

/// Nats of repeated words by the distance from the last mention.
fn by_distance(models: &[Named<'_>]) -> (String, Rows) {
    let mut bins: Vec<(bool, usize)> = models[0].1.by_distance.kinds().copied().collect();
    bins.sort_by_key(|&(is_name, bin)| (!is_name, bin));
    let is = |i: usize| {
        let bin = bins[i];
        move |kind: &(bool, usize)| *kind == bin
    };
    let mut table = rows(bins.len()).left("", |&i| if bins[i].0 { "names" } else { "other words" });
    table = table.right("tokens back", |&i| {
        let (from, to) = distances(bins[i].1);
        format!("{from}-{to}")
    });
    table = table.right("mentions", |&i| models[0].1.by_distance.of(is(i)).tokens());
    table = compared(table, models, TOKEN, |ledger, i| ledger.by_distance.of(is(i)));
    (
        format!("What the first token of a repeated word costs by the distance from its last mention, in nats{ASIDE}"),
        table,
    )
}

/// Whether the model keeps facts, in a sentence, beside another model if there is one, such as `("without latents", …)`; `None`
/// if its stories repeat none.
pub fn sentence(model: &Ledger, other: Option<Named<'_>>) -> Option<String> {
    let stories = model.stories.as_ref()?;
    let part = |i: usize| {
        let of_100 = |ledger: &Ledger| {
            let share = ledger.stories.as_ref()?.kept.as_ref()?[i].share().mean;
            share.is_finite().then(|| digits(100.0 * share, 0))
        };
        let other = other.and_then(|(name, other)| Some(format!("; {name} {}", of_100(other)?))).unwrap_or_default();
        Some(format!("{} of 100 facts that were out of sight{other}", of_100(model)?))
    };
    Some(format!(
        "After the first half of an unseen story it kept {}. In stories of its own it kept {}. By chance it would keep {} of 100.",
        part(1)?,
        part(0)?,
        digits(100.0 / stories.values as f64, 0)
    ))
}

/// The ledgers of a run and of the runs that it is compared with, for JSON.
pub struct Book<'a>(pub &'a [Named<'a>]);

#[derive(Serialize)]
struct Figure {
    value: f64,
    error: f64,
}

impl From<Mean> for Figure {
    fn from(Mean { mean, error }: Mean) -> Self {
        Self { value: mean, error }
    }
}

/// The `ledger` object of the JSON output. Nats per mention, unless the name says otherwise.
#[derive(Serialize)]
pub struct Json<'a> {
    run: &'a str,
    nats_per_sequence: Figure,
    latents_nats_per_sequence: Figure,
    /// The run's cost minus that of this run, paired.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_less: Option<Figure>,
    #[serde(flatten)]
    stories: Option<StoriesJson>,
    words: BTreeMap<&'static str, WordJson>,
    /// The second half of each sequence with latents inferred from the first; nothing for stories.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    second_halves: BTreeMap<&'static str, HalfJson>,
    distances: Vec<DistanceJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    against: Vec<Json<'a>>,
}

#[derive(Serialize)]
struct StoriesJson {
    /// What the first letter of a fact's first mention costs the model.
    first_nats: Figure,
    /// What the first letter of a later mention costs the model, the source itself and the best reader without memory: the
    /// same letters for all three. Each also pays for the sentence if the letter begins one.
    repeat_nats: Figure,
    truth_repeat_nats: Figure,
    floor_repeat_nats: Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_unconditional: Option<KeptJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_prompted: Option<KeptJson>,
    kept_by_chance: f64,
    reach_bytes: usize,
    classes: BTreeMap<&'static str, ClassJson>,
    facts: BTreeMap<&'static str, FactJson>,
}

#[derive(Serialize)]
struct KeptJson {
    #[serde(flatten)]
    share: Figure,
    kept: f64,
    of: f64,
}

#[derive(Serialize)]
struct ClassJson {
    tokens_per_story: f64,
    nats_per_story: Figure,
    truth_nats_per_story: f64,
    floor_nats_per_story: f64,
}

#[derive(Serialize)]
struct FactJson {
    first_nats: Figure,
    repeat_nats: Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    bits: Option<Figure>,
}

#[derive(Serialize)]
struct WordJson {
    mentions: f64,
    first_token_nats: Figure,
    other_tokens_nats: Figure,
    /// The run's first tokens minus those of this run, paired.
    #[serde(skip_serializing_if = "Option::is_none")]
    run_less: Option<Figure>,
}

#[derive(Serialize)]
struct HalfJson {
    mentions: f64,
    first_token_nats: Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_less: Option<Figure>,
}

#[derive(Serialize)]
struct DistanceJson {
    names: bool,
    tokens_back: [usize; 2],
    mentions: f64,
    first_token_nats: Figure,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_less: Option<Figure>,
}

impl<'a> Book<'a> {
    /// The object.
    pub fn json(&self) -> Json<'a> {
        let json = |other: Option<&Ledger>, (run, ledger): Named<'a>| {
            let word = |(name, word): &(&'static str, Word)| {
                let [first, later] =
                    [&ledger.first_tokens, &ledger.later_tokens].map(|tally| tally.of(|kind| kind == word));
                let run_less = other.map(|run| run.first_tokens.of(|kind| kind == word).less(&first).into());
                let (first_token_nats, other_tokens_nats) = (first.per_token().into(), later.per_token().into());
                (*name, WordJson { mentions: first.tokens(), first_token_nats, other_tokens_nats, run_less })
            };
            let half = |(name, word): &(&'static str, Word)| {
                let entry = ledger.second_halves.of(|kind| kind == word);
                let run_less = other.map(|run| run.second_halves.of(|kind| kind == word).less(&entry).into());
                let half = HalfJson { mentions: entry.tokens(), first_token_nats: entry.per_token().into(), run_less };
                (entry.tokens() > 0.0).then_some((*name, half))
            };
            let distance = |bin: &(bool, usize)| {
                let entry = ledger.by_distance.of(|kind| kind == bin);
                DistanceJson {
                    names: bin.0,
                    tokens_back: distances(bin.1).into(),
                    mentions: entry.tokens(),
                    first_token_nats: entry.per_token().into(),
                    run_less: other.map(|run| run.by_distance.of(|kind| kind == bin).less(&entry).into()),
                }
            };
            Json {
                run,
                nats_per_sequence: ledger.nats().per_sequence().into(),
                latents_nats_per_sequence: ledger.latents().per_sequence().into(),
                run_less: other.map(|run| run.nats().less_per_sequence(&ledger.nats()).into()),
                stories: ledger.stories.as_ref().map(stories_json),
                words: WORDS.iter().map(word).collect(),
                second_halves: WORDS.iter().filter_map(half).collect(),
                distances: ledger.by_distance.kinds().map(distance).collect(),
                against: Vec::new(),
            }
        };
        let [run, others @ ..] = self.0 else { unreachable!("a run") };
        let against = others.iter().map(|&other| json(Some(run.1), other)).collect();
        Json { against, ..json(None, *run) }
    }
}

fn stories_json(stories: &Stories) -> StoriesJson {
    let nats = |is: &dyn Fn(&Class) -> bool| stories.model.of(is).per_token().into();
    let repeat = |tally: &Tally<Class>| tally.of(CLASSES[1].2).per_token().into();
    let kept = |i: usize| {
        stories.kept.as_ref().map(|both| {
            let [kept, of] = both[i].counts();
            KeptJson { share: both[i].share().into(), kept, of }
        })
    };
    let class = |(_, name, is): &(&'static str, &'static str, Is)| {
        let [model, truth, floor] = [&stories.model, &stories.truth, &stories.floor].map(|tally| tally.of(is));
        let class = ClassJson {
            tokens_per_story: model.tokens() / model.0.len() as f64,
            nats_per_story: model.per_sequence().into(),
            truth_nats_per_story: truth.per_sequence().mean,
            floor_nats_per_story: floor.per_sequence().mean,
        };
        (*name, class)
    };
    let fact = |(i, (name, _)): (usize, &(&'static str, &'static str))| {
        let fact = FactJson {
            first_nats: nats(&|class| *class == Class::First(i)),
            repeat_nats: nats(&|class| *class == Class::Repeat(i)),
            bits: stories.bits.as_ref().map(|bits| bits[i].into()),
        };
        (*name, fact)
    };
    StoriesJson {
        first_nats: nats(&CLASSES[0].2),
        repeat_nats: repeat(&stories.model),
        truth_repeat_nats: repeat(&stories.truth),
        floor_repeat_nats: repeat(&stories.floor),
        kept_unconditional: kept(0),
        kept_prompted: kept(1),
        kept_by_chance: 1.0 / stories.values as f64,
        reach_bytes: stories.reach,
        classes: CLASSES.iter().map(class).collect(),
        facts: FACTS.iter().enumerate().map(fact).collect(),
    }
}
