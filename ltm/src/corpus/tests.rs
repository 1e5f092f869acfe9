use std::collections::HashMap;

use super::grammar::{FACTS, Slot};
use super::story::Sentence;
use super::*;

/// Every story of `corpus`, by plain enumeration.
fn all_stories(corpus: &Corpus) -> Vec<Vec<Sentence>> {
    let mut done = Vec::new();
    let mut open = vec![(Vec::<Sentence>::new(), [None; FACTS.len()])];
    while let Some((story, facts)) = open.pop() {
        if corpus.config.sentences.contains(&story.len()) {
            done.push(story.clone());
        }
        if story.len() == *corpus.config.sentences.end() {
            continue;
        }
        for template in corpus.choices(story.last().map(|s| s.template)) {
            let mut partial = vec![(Vec::new(), facts)];
            for slot in corpus.templates[template].slots() {
                let mut longer = Vec::new();
                for (words, facts) in partial {
                    for word in 0..slot.words(corpus.config.values).len() {
                        let (mut words, mut facts) = (words.clone(), facts);
                        words.push(word);
                        let fits = match slot {
                            Slot::Fact(fact) => *facts[fact].get_or_insert(word) == word,
                            Slot::Filler(_) => true,
                        };
                        longer.extend(fits.then_some((words, facts)));
                    }
                }
                partial = longer;
            }
            open.extend(partial.into_iter().map(|(words, facts)| {
                let mut story = story.clone();
                story.push(Sentence { template, words });
                (story, facts)
            }));
        }
    }
    done
}

#[test]
fn the_documents_of_a_tiny_source_are_distinct_and_their_probabilities_sum_to_one() {
    let corpus = Corpus::tiny();
    let stories = all_stories(&corpus);
    let mut seen = HashMap::new();
    let (mut total, mut entropy, mut memoryless, mut longest) = (0.0, 0.0, 0.0, 0);
    for story in &stories {
        let text = corpus.write(story);
        assert_eq!(corpus.read(&text).as_ref(), Some(story));
        let log_p = corpus.log_prob(&text).unwrap();
        total += log_p.exp();
        entropy -= log_p.exp() * log_p;
        memoryless += log_p.exp() * corpus.windowed_nats(&text, 0).unwrap();
        longest = longest.max(text.len());
        if let Some(other) = seen.insert(text, story) {
            panic!("{story:?} and {other:?} make the same text");
        }
    }
    assert!(stories.len() > 10_000, "{}", stories.len());
    assert!((total - 1.0).abs() < 1e-10, "{total}");
    assert!((entropy - corpus.entropy()).abs() < 1e-9, "{entropy} {}", corpus.entropy());
    assert!((memoryless - corpus.memoryless_nats()).abs() < 1e-9, "{memoryless} {}", corpus.memoryless_nats());
    assert_eq!(longest, corpus.max_bytes());
}

#[test]
fn documents_are_drawn_as_often_as_their_probability_says() {
    let corpus = Corpus::new(CorpusConfig { sentences: 1..=2, values: 2 }).unwrap();
    let draws = 40_000;
    let mut counts = HashMap::new();
    for index in 0..draws {
        *counts.entry(corpus.document(3, index).bytes).or_insert(0) += 1;
    }
    // Pearson's statistic over all documents: mean cells − 1, variance about 2·cells + Σ 1/(draws·p).
    let (mut statistic, mut cells, mut rare) = (0.0, 0.0, 0.0);
    for story in all_stories(&corpus) {
        let text = corpus.write(&story);
        let expected = f64::from(draws) * corpus.log_prob(&text).unwrap().exp();
        let count = f64::from(counts.remove(&text).unwrap_or(0));
        statistic += (count - expected).powi(2) / expected;
        rare += 1.0 / expected;
        cells += 1.0;
    }
    assert!(counts.is_empty(), "outside the support: {counts:?}");
    let deviation: f64 = 2.0 * cells + rare;
    assert!((statistic - cells).abs() < 5.0 * deviation.sqrt(), "{statistic} for {cells} cells");
}

#[test]
fn default_documents_read_back_and_cost_what_the_docs_say() {
    let corpus = Corpus::default();
    assert!(corpus.max_bytes() <= 255, "{}", corpus.max_bytes());
    let n = 5_000;
    let (mut nats, mut squares, mut bytes) = (0.0, 0.0, 0);
    let mut windowed = [0.0; 4];
    for index in 0..n {
        let document = corpus.document(11, index);
        assert_eq!(corpus.read(&document.bytes), Some(corpus.draw(11, index)));
        assert_eq!(corpus.log_prob(&document.bytes), Some(-document.nats));
        assert!(document.bytes.is_ascii() && document.bytes.len() <= corpus.max_bytes());
        let consistency = corpus.consistency(&document.bytes);
        assert!(consistency.repeats > 0 && consistency.kept == consistency.repeats);
        nats += document.nats;
        squares += document.nats.powi(2);
        bytes += document.bytes.len();
        for (sum, window) in windowed.iter_mut().zip([0, 16, 32, 64]) {
            *sum += corpus.windowed_nats(&document.bytes, window).unwrap();
        }
    }
    let n = f64::from(n);
    let error = ((squares / n - (nats / n).powi(2)) / n).sqrt();
    assert!((nats / n - corpus.entropy()).abs() < 4.0 * error, "{} {}", nats / n, corpus.entropy());
    println!("{:?} entropy {:.2} memoryless {:.2}", corpus.expected(), corpus.entropy(), corpus.memoryless_nats());
    println!("mean bytes {:.1}, max {}", bytes as f64 / n, corpus.max_bytes());
    println!("windows 0 16 32 64: {:?}", windowed.map(|sum| sum / n));
    for i in 0..5 {
        println!("{}", String::from_utf8(corpus.document(1, i).bytes).unwrap());
    }
    panic!();
}
