//! Streaming is compared with what the data module does for tokens that lie in memory.

use super::super::{Detokenise, Group, Part, Texts, known};
use super::*;
use crate::text::formats::{Format, TextSplit};
use crate::text::tokenizer;
use ltm::config::Tokenizer as Name;
use ltm::data::{DataFile, Dataset, Documents, Order, Sampler, Source, Tail, Windows};
use std::path::{Path, PathBuf};

/// A file with some text, and a set that reads it by lines.
fn set(folder: &Path, text: impl AsRef<[u8]>, chunking: Chunking) -> Set {
    let file = folder.join("t.txt");
    std::fs::write(&file, text).unwrap();
    Set {
        name: "own".into(),
        files: vec![file],
        format: Format::Text(TextSplit::Lines),
        group: Group::Each,
        detokenise: Detokenise::None,
        chunking,
        documents: None,
    }
}

fn texts(set: &Set) -> Result<Vec<String>> {
    let tokenizer = tokenizer(Name::Bytes);
    let mut texts = Texts::new(set, &tokenizer)?;
    let mut all = vec![String::new()];
    while let Some(Part { text, position }) = texts.next_part()? {
        all.last_mut().unwrap().push_str(&String::from_utf8(text).unwrap());
        if position == Position::Last {
            all.push(String::new());
        }
    }
    all.pop();
    Ok(all)
}

#[test]
fn sequences_are_those_of_the_data_module() {
    let folder = tempfile::tempdir().unwrap();
    let text: String = (0..300).map(|i| format!("{}\n", "some words, ".repeat(i * i % 7))).collect();
    let tokenizer = tokenizer(Name::Bytes);
    for chunking in [Chunking::Windows, Chunking::Documents] {
        let set = set(folder.path(), &text, chunking);
        let lines = text.lines().filter(|line| !line.is_empty());
        let tokens = lines.flat_map(|line| line.bytes().map(u16::from).chain([tokenizer.end()])).collect();
        let data = Dataset::from_tokens(DataFile::default(), tokens, &tokenizer).unwrap();
        let source: Arc<dyn Source> = match chunking {
            Chunking::Windows => Arc::new(Windows::new(data, 32, Tail::Pad).unwrap()),
            Chunking::Documents => Arc::new(Documents::new(data, 32).unwrap()),
        };
        let mut sampler = Sampler::new(source.clone(), Order::Once).unwrap();
        let mut streamed = Sequences::new(&set, &tokenizer, None, 32).unwrap();
        let (mut expected, mut batch) = (Batch::new(3, 32), Batch::new(3, 32));
        let mut first = 0;
        while streamed.fill(&mut batch).unwrap() {
            sampler.fill(first, &mut expected).unwrap();
            assert_eq!(batch.targets, expected.targets);
            for (b, info) in batch.samples.iter().enumerate().filter(|(_, info)| info.scored > 0) {
                assert_eq!(*info, expected.samples[b]);
                assert_eq!(batch.tokens[b * 32..][..32], expected.tokens[b * 32..][..32]);
            }
            first += 3;
        }
        assert!(first >= source.samples().unwrap() && first < source.samples().unwrap() + 3);
    }
}

#[test]
fn long_documents_come_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let long = "a word and another, ".repeat(60_000);
    let mut set = set(folder.path(), format!("{long}\nshort\n"), Chunking::Windows);
    let tokenizer = tokenizer(Name::Bytes);
    let mut parts = Texts::new(&set, &tokenizer).unwrap();
    let part = parts.next_part().unwrap().unwrap();
    assert!(part.position == Position::Inside && part.text.len() < long.len() / 2);
    drop(parts);
    assert!(texts(&set).unwrap() == [long.as_str(), "short"]);
    set.group = Group::All;
    assert!(texts(&set).unwrap() == [format!("{long}\nshort")]);
    // Nowhere to cut: it is cut all the same.
    let solid = "é".repeat(900_000);
    std::fs::write(&set.files[0], &solid).unwrap();
    let mut parts = Texts::new(&set, &tokenizer).unwrap();
    assert!(parts.next_part().unwrap().unwrap().text.len() < solid.len());
    drop(parts);
    assert!(texts(&set).unwrap() == [solid]);
    set.documents = Some(0);
    assert!(texts(&set).unwrap().is_empty());
}

#[test]
fn articles_begin_at_their_titles() {
    let folder = tempfile::tempdir().unwrap();
    let text = " \n = One = \n \n It was @-@ so . \n \n = = Part = = \n more \n \n = Two = \n \n end \n";
    let mut set = set(folder.path(), text, Chunking::Documents);
    let known = known("wikitext").unwrap();
    (set.format, set.group, set.detokenise) = (known.format(), known.group(), known.detokenise);
    assert_eq!(texts(&set).unwrap(), ["= One =\n\nIt was-so.\n\n== Part ==\nmore", "= Two =\n\nend"]);
    set.documents = Some(1);
    assert_eq!(texts(&set).unwrap().len(), 1);
}

#[test]
fn what_is_wrong_names_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let of = |set: &Set, name: Name| {
        let tokenizer = tokenizer(name);
        let mut sequences = Sequences::new(set, &tokenizer, None, 16).unwrap();
        let mut batch = Batch::new(2, 16);
        let mut run = || -> Result<()> {
            while sequences.fill(&mut batch)? {}
            Ok(())
        };
        run().unwrap_err().to_string()
    };
    let short = set(folder.path(), "short\n", Chunking::Windows);
    assert!(of(&short, Name::Bytes).contains("6 tokens make no complete window of 16"), "{}", of(&short, Name::Bytes));
    let mut record = set(folder.path(), "{\"text\": \"\"}\n{\"text\": \"short\"}\n", Chunking::Windows);
    (record.format, record.group) = (Format::Jsonl { field: "text".into() }, Group::Each);
    let said = of(&record, Name::Bytes);
    assert!(said.contains("6 tokens make") && said.contains("1 records or files without text, the first at"), "{said}");
    assert!(of(&set(folder.path(), "\n \n", Chunking::Windows), Name::Bytes).contains("no document with text"));
    let mut bad = set(folder.path(), b"one two\nthree\nfo\xFFur\n", Chunking::Windows);
    bad.detokenise = Detokenise::Ptb;
    let said = of(&bad, Name::Bytes);
    assert!(said.ends_with("t.txt:3: invalid UTF-8, and detokenise ptb needs UTF-8"), "{said}");
    bad.detokenise = Detokenise::None;
    let said = of(&bad, Name::Gpt2);
    assert!(said.contains("t.txt:3: invalid UTF-8, and tokenizer gpt2 needs UTF-8"), "{said}");
    let gone = Set { files: vec![PathBuf::from("none.txt")], ..bad };
    assert!(of(&gone, Name::Bytes).starts_with("cannot read none.txt"));
    assert!(gone.sha256(|_| Ok(())).unwrap_err().to_string().starts_with("cannot read none.txt"));
}

#[test]
fn records_without_text_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"text\": \"some text\"}\n{\"text\": \"\"}\n{\"text\": \"more\"}\n{\"text\": \" \"}\n";
    let mut set = set(folder.path(), text, Chunking::Documents);
    set.format = Format::Jsonl { field: "text".into() };
    let tokenizer = tokenizer(Name::Bytes);
    let mut sequences = Sequences::new(&set, &tokenizer, Some(tokenizer.clone()), 16).unwrap();
    let mut batch = Batch::new(4, 16);
    assert!(sequences.fill(&mut batch).unwrap());
    assert_eq!(batch.samples.iter().map(|info| info.scored).collect::<Vec<_>>(), [10, 5, 0, 0]);
    assert!(!sequences.fill(&mut batch).unwrap());
    let left_out = sequences.left_out();
    assert_eq!((left_out.documents, sequences.documents()), (2, 2));
    assert!(left_out.first.as_ref().unwrap().to_string().ends_with("t.txt:2"));
    // Nine and four bytes, and two ends.
    assert_eq!(sequences.gpt2_tokens(), Some(15));
}

#[test]
fn files_without_text_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut set = set(folder.path(), "some text\n", Chunking::Documents);
    let blank = ["none.txt", "blank.txt"].map(|name| folder.path().join(name));
    std::fs::write(&blank[0], "").unwrap();
    std::fs::write(&blank[1], " \n\n").unwrap();
    let text = set.files[0].clone();
    set.files = vec![text.clone(), blank[0].clone(), text, blank[1].clone()];
    let tokenizer = tokenizer(Name::Bytes);
    for group in [Group::Each, Group::All, Group::Articles] {
        set.group = group;
        let mut parts = Texts::new(&set, &tokenizer).unwrap();
        while parts.next_part().unwrap().is_some() {}
        assert!(parts.next_part().unwrap().is_none(), "the end stays the end");
        let LeftOut { documents, first } = parts.left_out();
        assert_eq!((*documents, first.as_ref().unwrap().to_string()), (2, format!("{}:1", blank[0].display())));
    }
}
