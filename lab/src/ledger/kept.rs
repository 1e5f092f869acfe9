//! How many facts generated stories keep.

use engine::Result;
use ltm::corpus::{Corpus, FACTS};
use ltm::evaluate::Mean;
use ltm::generate::Writing;
use ltm::run::{Loaded, REPORT_SEED};

/// Repeated facts whose last mention is out of sight, and those among them with the value of the first mention: only a
/// memory keeps them.
#[derive(Clone, Debug, Default)]
pub struct Kept(pub Vec<[f64; 2]>);

impl Kept {
    /// The share that is kept, with the error over stories.
    pub fn share(&self) -> Mean {
        Mean::of_ratio(&self.0)
    }

    /// Kept, and all.
    pub fn counts(&self) -> [f64; 2] {
        self.0.iter().fold([0.0; 2], |[a, b], [kept, all]| [a + kept, b + all])
    }
}

/// Writes so many stories with latents from the prior and goes on from the first halves of as many unseen ones, at
/// temperature 1: the model's own samples. Calls `progress` after each.
///
/// # Errors
/// Too little memory, and weights that are damaged.
pub fn write(
    model: &mut Loaded,
    corpus: &Corpus,
    steps: usize,
    stories: u32,
    mut progress: impl FnMut(),
) -> Result<[Kept; 2]> {
    let reach = model.config.model.reach();
    // As many tokens as fit into the sequence of training.
    let writing = Writing { steps: Some(steps), ..Writing::default() };
    let mut writer = crate::text::writer(model, writing, stories.into())?;
    let mut kept = [Kept::default(), Kept::default()];
    for story in 0..stories {
        let free = writer.whole(&mut model.store, None, story)?;
        kept[0].0.push(count(corpus, free.as_bytes(), 0, reach));
        progress();
        let unseen = corpus.document(REPORT_SEED, story).bytes;
        let prompt = String::from_utf8_lossy(&unseen[..half(&unseen)]).into_owned();
        let all = prompt.clone() + &writer.whole(&mut model.store, Some(&prompt), story)?;
        kept[1].0.push(count(corpus, all.as_bytes(), prompt.len(), reach));
        progress();
    }
    Ok(kept)
}

/// The end of a sentence that is nearest to the middle.
pub fn half(story: &[u8]) -> usize {
    let ends = story.iter().enumerate().filter(|&(_, &byte)| byte == b'.').map(|(i, _)| i + 1);
    ends.min_by_key(|end| end.abs_diff(story.len() / 2)).unwrap_or(story.len() / 2)
}

/// Repeats that are kept, and all, from byte `from` of `text` on, for a reader that sees `reach` bytes back. If `from` is
/// not 0, only facts that are mentioned before it count.
fn count(corpus: &Corpus, text: &[u8], from: usize, reach: usize) -> [f64; 2] {
    let mut first = [None; FACTS.len()];
    let mut last_end = [0; FACTS.len()];
    let [mut kept, mut all] = [0.0; 2];
    for (fact, start, value) in corpus.mentions(text) {
        match first[fact] {
            Some(first) if start >= from && last_end[fact] + reach <= start => {
                all += 1.0;
                kept += f64::from(value == first);
            }
            None if start < from || from == 0 => first[fact] = Some(value),
            _ => {}
        }
        last_end[fact] = start + value.len();
    }
    [kept, all]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm::config::Config;

    /// Counts by hand, with a reach of a sentence or so.
    #[test]
    fn only_what_is_out_of_sight_is_memory() {
        let corpus = Corpus::of(&Config::preset("demo").unwrap().resolved().unwrap()).unwrap();
        let text = b"Finn hid the amber key. The owl lived in Oslo. Finn paid Rosa. Anna hid the amber pot. Rosa, Rosa. The owl.";
        let prompt = b"Finn hid the amber key. The owl lived in Oslo.".len();
        for (from, reach, counts) in [
            // Finn, Anna, amber, pot, Rosa, owl are repeats out of sight; the second Rosa is in sight.
            (0, 8, [4.0, 6.0]),
            // Anna is in sight of Finn.
            (0, 20, [4.0, 5.0]),
            // Rosa is not of the prompt.
            (prompt, 8, [3.0, 5.0]),
            (0, 1000, [0.0, 0.0]),
        ] {
            assert_eq!(count(&corpus, text, from, reach), counts, "from {from}, reach {reach}");
        }
        assert_eq!(half(text), 46);
        let kept = Kept(vec![[1.0, 2.0], [0.0, 2.0]]);
        assert_eq!((kept.share().mean, kept.counts()), (0.25, [1.0, 4.0]));
    }
}
