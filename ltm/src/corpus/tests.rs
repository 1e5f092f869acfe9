use std::collections::HashMap;

use super::*;

/// Every story of `corpus`, by plain enumeration.
fn all_stories(corpus: &Corpus) -> Vec<Vec<Sentence>> {
    let mut done = Vec::new();
    let mut open = vec![(Vec::<Sentence>::new(), [None; FACTS.len()])];
    while let Some((story, facts)) = open.pop() {
        if corpus.sentences.contains(&story.len()) {
            done.push(story.clone());
        }
        if story.len() == *corpus.sentences.end() {
            continue;
        }
        for &template in corpus.choices(story.last()) {
            let mut partial = vec![(Vec::new(), facts)];
            for slot in &corpus.templates[template].slots {
                let mut longer = Vec::new();
                for (words, facts) in partial {
                    for word in 0..slot.words.len() {
                        let (mut words, mut facts) = (words.clone(), facts);
                        words.push(word);
                        let fits = slot.fact.is_none_or(|fact| *facts[fact].get_or_insert(word) == word);
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
    let corpus = Corpus::new(1..=3, 2);
    let stories = all_stories(&corpus);
    let mut seen = HashMap::new();
    let (mut total, mut entropy, mut longest) = (0.0, 0.0, 0);
    for story in &stories {
        let text = corpus.write(story);
        assert_eq!(corpus.read(&text).as_ref(), Some(story));
        let log_p = corpus.log_prob(&text).unwrap();
        total += log_p.exp();
        entropy -= log_p.exp() * log_p;
        longest = longest.max(text.len());
        if let Some(other) = seen.insert(text, story) {
            panic!("{story:?} and {other:?} make the same text");
        }
    }
    assert!(stories.len() > 10_000, "{}", stories.len());
    assert!((total - 1.0).abs() < 1e-10, "{total}");
    assert!((entropy - corpus.entropy()).abs() < 1e-9, "{entropy} {}", corpus.entropy());
    assert_eq!(longest, corpus.max_bytes());
}

#[test]
fn documents_are_drawn_as_often_as_their_probability_says() {
    let corpus = Corpus::new(1..=2, 2);
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
    let story = corpus.document(5, 9);
    assert!(story == Corpus::default().document(5, 9));
    assert!(story != corpus.document(5, 10) && story != corpus.document(6, 9));
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
    let (entropy, bytes) = (corpus.entropy(), bytes as f64 / n);
    assert!((entropy - 34.9).abs() < 0.051 && (bytes - 188.0).abs() < 1.0, "{entropy} nats, {bytes} bytes");
    let windowed = windowed.map(|sum| sum / n);
    assert!(windowed.is_sorted_by(|a, b| a >= b), "{windowed:?}");
    assert!((windowed[2] - 72.0).abs() < 0.5 && (windowed[3] - 42.3).abs() < 0.5, "{windowed:?}");
}

const STORY: &str =
    "Finn hid the amber key. The owl lived in Oslo. Finn paid Rosa out of envy. The amber key was in Oslo.";

#[test]
fn a_price_by_hand() {
    let corpus = Corpus::new(3..=4, MOST_VALUES);
    let next = |template: usize| corpus.next[template].len() as f64;
    let choices = 2.0 * (14.0 * 4.0) * next(0) * (next(4) * 4.0) * next(12);
    let price = |window| corpus.windowed_nats(STORY.as_bytes(), window).unwrap();
    assert!((price(usize::MAX) - (choices.ln() + 7.0 * 16f64.ln())).abs() < 1e-12);
    assert!((price(0) - (choices.ln() + 11.0 * 16f64.ln())).abs() < 1e-12);
    // From the end of the first "Finn" to the start of the second there are 43 bytes: 44 show its last letter.
    assert!((price(43) - price(44) - 16f64.ln()).abs() < 1e-12);
    // The end of the first "Oslo" is 44 bytes before the second; amber and key are further away.
    assert!((price(44) - (choices.ln() + 10.0 * 16f64.ln())).abs() < 1e-12);
}

#[test]
fn what_the_source_cannot_say_has_no_probability() {
    let corpus = Corpus::new(3..=4, MOST_VALUES);
    assert!(corpus.log_prob(STORY.as_bytes()).is_some());
    let first = "Finn hid the amber key.";
    for (wrong, why) in [
        (String::new(), "no sentence"),
        (STORY.replacen("Finn paid", "Anna paid", 1), "a second hero"),
        (STORY.replace("hid", "ate"), "an unknown verb"),
        (STORY.replace(". ", ".  "), "two spaces"),
        (format!("{STORY} "), "a space at the end"),
        (format!(" {STORY}"), "a space at the start"),
        (STORY[..STORY.len() - 1].into(), "no full stop"),
        (first.into(), "too short"),
        (format!("{STORY} Finn paid Rosa out of envy."), "too long"),
        (STORY.replace("The owl lived in Oslo.", first), "neighbours that share a fact"),
        (STORY.replace("Oslo", "Ösló"), "not ASCII"),
    ] {
        assert_eq!(corpus.log_prob(wrong.as_bytes()), None, "{why}: {wrong}");
    }
    let few = Corpus::new(3..=4, 5);
    assert_eq!(few.log_prob(STORY.as_bytes()), None, "words beyond the first five");
}

#[test]
fn facts_are_found_in_any_text() {
    let corpus = Corpus::default();
    let text = b"\xffFinn hid a the redred key,key. Anna Finn the pot";
    let found = corpus.mentions(text);
    assert_eq!(found[..4], [(0, 1, "Finn"), (3, 23, "key"), (3, 27, "key"), (0, 32, "Anna")]);
    assert_eq!(corpus.consistency(text), Consistency { repeats: 4, kept: 2 });
    assert_eq!(corpus.consistency(b""), Consistency::default());
}
