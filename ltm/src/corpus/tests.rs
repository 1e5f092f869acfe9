use std::collections::HashMap;

use super::*;

/// The most bytes of a document.
fn max_bytes(corpus: &Corpus) -> usize {
    corpus.bytes + corpus.templates.iter().map(Template::longest).max().unwrap()
}

/// Every story of `corpus`, by plain enumeration, with its text.
fn all_stories(corpus: &Corpus) -> Vec<(Vec<Sentence>, Vec<u8>)> {
    let mut done = Vec::new();
    let mut open = vec![(Vec::<Sentence>::new(), Vec::new(), [None; FACTS.len()])];
    while let Some((story, text, facts)) = open.pop() {
        if text.len() >= corpus.bytes {
            done.push((story, text));
            continue;
        }
        for (template, _) in corpus.choices(story.last()) {
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
                let (mut story, mut text) = (story.clone(), text.clone());
                corpus.push(Sentence { template, words }, &mut story, &mut text);
                (story, text, facts)
            }));
        }
    }
    done
}

#[test]
fn the_documents_of_a_tiny_source_are_distinct_and_their_probabilities_sum_to_one() {
    for remarks in [0.0, 0.25] {
        let corpus = Corpus::new(45, 2, remarks);
        let stories = all_stories(&corpus);
        let mut seen = HashMap::new();
        let mut total = 0.0;
        for (story, text) in &stories {
            assert_eq!(corpus.read(text).as_ref(), Some(story));
            total += corpus.log_prob(text).unwrap().exp();
            assert!((corpus.bytes..=max_bytes(&corpus)).contains(&text.len()));
            if let Some(other) = seen.insert(text, story) {
                panic!("{story:?} and {other:?} make the same text");
            }
        }
        assert!(stories.len() > 5_000, "{}", stories.len());
        assert!((total - 1.0).abs() < 1e-10, "{total}");
    }
}

#[test]
fn documents_are_drawn_as_often_as_their_probability_says() {
    let corpus = Corpus::new(25, 2, 0.3);
    let draws = 40_000;
    let mut counts = HashMap::new();
    for index in 0..draws {
        *counts.entry(corpus.document(3, index).bytes).or_insert(0) += 1;
    }
    // Pearson's statistic over all documents: mean cells − 1, variance about 2·cells + Σ 1/(draws·p).
    let (mut statistic, mut cells, mut rare) = (0.0, 0.0, 0.0);
    for (_, text) in all_stories(&corpus) {
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
fn documents_read_back_and_cost_what_the_docs_say() {
    let mut config = Config::default();
    config.set_all("model.seq=256").unwrap();
    // Length, mentions, cost, the cost after 32 bytes.
    for (settings, expected) in [
        ("model.seq=256", [235.0, 3.62, 37.2, 88.2]),
        ("model.seq=1024", [1003.6, 15.4, 90.1, 369.9]),
        ("data.corpus.mentions=4", [1002.4, 4.08, 160.8, 220.5]),
        ("data.corpus.bytes=400 data.corpus.values=4", [413.5, 3.95, 62.9, 91.4]),
    ] {
        config.set_all(settings).unwrap();
        let corpus = Corpus::of(&config).unwrap();
        assert!(max_bytes(&corpus) < config.model.seq, "{}", max_bytes(&corpus));
        let n = 400;
        let mut sums = [0.0; 4];
        for index in 0..n {
            let document = corpus.document(11, index);
            let text = &document.bytes;
            assert_eq!(corpus.read(text), Some(corpus.draw(11, index).0));
            assert_eq!(corpus.log_prob(text), Some(-document.nats));
            assert!(text.is_ascii() && (corpus.bytes..=max_bytes(&corpus)).contains(&text.len()));
            let consistency = corpus.consistency(text);
            assert!(consistency.repeats > 0 && consistency.kept == consistency.repeats);
            let mentions = corpus.mentions(text).len() as f64 / FACTS.len() as f64;
            let forgetful = corpus.windowed_nats(text, 32).unwrap();
            assert!(forgetful > document.nats && forgetful <= corpus.windowed_nats(text, 0).unwrap());
            let found = [text.len() as f64, mentions, document.nats, forgetful];
            sums.iter_mut().zip(found).for_each(|(sum, x)| *sum += x / f64::from(n));
        }
        assert!((sums[1] / corpus.mean_mentions() - 1.0).abs() < 0.04, "{sums:?} {}", corpus.mean_mentions());
        let near = sums.iter().zip(expected).all(|(found, expected)| (found / expected - 1.0f64).abs() < 0.01);
        assert!(near, "{settings}: {sums:.2?}");
    }
    let corpus = Corpus::of(&config).unwrap();
    let story = corpus.document(5, 9);
    assert!(story == Corpus::of(&config).unwrap().document(5, 9));
    assert!(story != corpus.document(5, 10) && story != corpus.document(6, 9));
    config.set_all("data.corpus.mentions=40").unwrap();
    let error = Corpus::of(&config).err().unwrap().to_string();
    assert!(error.starts_with("data.corpus.mentions = 40: stories of 400 bytes mention a fact "), "{error}");
}

const STORY: &str =
    "Finn hid the amber key. The owl lived in Oslo. Finn paid Rosa out of envy. The amber key was in Oslo.";

#[test]
fn a_price_by_hand() {
    let corpus = Corpus::new(80, MOST_VALUES, 0.0);
    let next = |template: usize| corpus.next[template].len() as f64;
    let choices = (14.0 * 4.0) * next(0) * (next(4) * 4.0) * next(12);
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
    let corpus = Corpus::new(80, MOST_VALUES, 0.0);
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
    let few = Corpus::new(80, 5, 0.0);
    assert_eq!(few.log_prob(STORY.as_bytes()), None, "words beyond the first five");
}

#[test]
fn facts_are_found_in_any_text() {
    let corpus = Corpus::new(80, MOST_VALUES, 0.0);
    let text = b"\xffFinn hid a the redred key,key. Anna Finn the pot";
    let found = corpus.mentions(text);
    assert_eq!(found[..4], [(0, 1, "Finn"), (3, 23, "key"), (3, 27, "key"), (0, 32, "Anna")]);
    assert_eq!(corpus.consistency(text), Consistency { repeats: 4, kept: 2 });
    assert_eq!(corpus.consistency(b""), Consistency::default());
}

#[test]
fn every_byte_has_a_class() {
    let corpus = Corpus::new(80, MOST_VALUES, 0.0);
    let letters: String = corpus
        .classes(b"Finn hid a key. Finn")
        .iter()
        .map(|class| match class {
            Class::First(fact) => char::from(b'0' + *fact as u8),
            Class::Repeat(_) => 'R',
            Class::Rest => 'r',
            Class::Filler => 'f',
            Class::Template => '.',
            Class::End => 'e',
        })
        .collect();
    assert_eq!(letters, "0rrr.fff...3rr..Rrrre");
}

#[test]
fn every_byte_pays_for_what_it_tells() {
    for (values, remarks) in [(MOST_VALUES, 0.0), (5, 0.3)] {
        let corpus = Corpus::new(300, values, remarks);
        for index in 0..20 {
            let text = corpus.document(7, index).bytes;
            for window in [0, 7, 31, 44, 100, usize::MAX] {
                let each = corpus.token_nats(&text, window).unwrap();
                let sum = corpus.windowed_nats(&text, window).unwrap();
                assert!(
                    (each.iter().sum::<f64>() - sum).abs() < 1e-9 && each.len() == text.len() + 1,
                    "window {window}"
                );
                assert!(each.iter().all(|nats| *nats > -1e-12) && each[text.len()] == 0.0);
            }
        }
    }
    let corpus = Corpus::new(80, MOST_VALUES, 0.0);
    let price = |window| corpus.token_nats(STORY.as_bytes(), window).unwrap();
    // Nothing but a place follows "was in ", so its first letter tells the place and nothing else.
    let place = STORY.rfind("Oslo").unwrap();
    let [known, unknown] = [usize::MAX, 0].map(|window| price(window)[place]);
    assert!(known.abs() < 1e-12 && (unknown - 16f64.ln()).abs() < 1e-12, "{known} {unknown}");
    // Of 14 sentences five begin with the hero and four with the friend; one of 16 names of each has an F.
    let first = price(usize::MAX)[0];
    assert!((first - (14.0 * 16.0 / 9.0f64).ln()).abs() < 1e-12, "{first}");
    assert_eq!(corpus.token_nats(b"Finn hid.", 0), None);
}
