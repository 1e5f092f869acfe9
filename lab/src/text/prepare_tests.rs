use super::*;
use crate::text::formats::TextSplit;
use crate::text::{open, tokenizer};
use ltm::config::{Choice, Tokenizer as Name};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn options(folder: &TempDir, inputs: &[(&str, &str)], format: Format) -> PrepareOptions {
    let write = |&(name, text): &(&str, &str)| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    PrepareOptions {
        inputs: inputs.iter().map(write).collect(),
        out: folder.path().join("out"),
        format,
        tokenizer: tokenizer(Name::Bytes),
        validation: 0.0,
        shard_tokens: SHARD_TOKENS,
        stop: Arc::default(),
    }
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (name(&path), if path.is_dir() { Vec::new() } else { fs::read(&path).unwrap() })).collect()
}

fn failure(options: &PrepareOptions) -> String {
    let before = contents(options.out.parent().unwrap());
    let error = prepare(options, &mut |_| {}).unwrap_err().to_string();
    assert!(!error.contains('\n'), "one line: {error}");
    assert_eq!(contents(options.out.parent().unwrap()), before, "something was left behind");
    error
}

#[test]
fn every_thread_count_writes_the_same_bytes() {
    let text: String =
        (0..3_000).map(|i| format!("{{\"t\": \"document {i}\\n{}\"}}\n", "words ".repeat(i % 50))).collect();
    let with = |threads| {
        let folder = tempfile::tempdir().unwrap();
        let mut options = options(&folder, &[("a", &text), ("b", &text)], Format::Jsonl { field: "t".into() });
        (options.validation, options.shard_tokens) = (0.1, 50_000);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let report = pool.install(|| prepare(&options, &mut |_| {})).unwrap();
        (report, contents(&options.out))
    };
    let (report, files) = with(1);
    let parts = [&report.manifest.train, &report.manifest.validation];
    assert_eq!(parts.iter().map(|part| part.documents).sum::<u64>(), 6_000);
    assert!((450..750).contains(&parts[1].documents), "{}", parts[1].documents);
    assert!(parts[0].shards.len() > 10);
    assert!(parts.iter().all(|part| part.tokens == part.bytes + part.documents));
    assert_eq!(files.len(), 1 + parts[0].shards.len() + parts[1].shards.len());
    assert_eq!(report.input_bytes, 2 * text.len() as u64);
    assert_eq!((report, files), with(3));
}

/// Opening a text gives the very tokens that preparing it writes.
#[test]
fn prepared_text_is_the_text_opened() {
    let folder = tempfile::tempdir().unwrap();
    let text = "A line of text, and\n\nanother one.\n".repeat(30_000);
    for &(name, word) in Name::ALL {
        let tokenizer = tokenizer(name);
        let mut options = options(&folder, &[("text.txt", &text)], Format::Text(TextSplit::File));
        (options.out, options.tokenizer) = (folder.path().join(word), tokenizer.clone());
        let mut calls = Vec::new();
        let report = prepare(&options, &mut |now| calls.push(now)).unwrap();
        assert_eq!((report.empty_documents, report.manifest.train.bytes), (0, text.len() as u64));
        assert_eq!(calls.last().unwrap().tokens, report.manifest.train.tokens);
        let read = |path: &Path| {
            let data = open(path, Split::Train, &tokenizer).unwrap();
            let mut tokens = vec![0; data.len() as usize];
            data.read(0, &mut tokens).unwrap();
            assert_eq!(data.bytes(), text.len() as u64);
            tokens
        };
        let tokens = read(&options.out);
        assert_eq!(tokens, read(&options.inputs[0]));
        let ids: Vec<u16> = tokens.iter().map(|&id| id as u16).collect();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text.as_bytes());
    }
}

#[test]
fn failures_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let jsonl = Format::Jsonl { field: "t".into() };
    let good = "{\"t\": \"x\"}\n";
    let bad = options(&folder, &[("a", good), ("b", "{\"t\": \"x\"}\n{\"u\": 1}")], jsonl.clone());
    assert_eq!(failure(&bad), format!("{place}/b:2: no field \"t\"; there are: u"));
    let empty = options(&folder, &[("a", "{\"t\": \"\"}\n"), ("b", "")], jsonl.clone());
    assert_eq!(failure(&empty), format!("{place}/a: no text in it"));
    let mut missing = options(&folder, &[("a", good)], jsonl.clone());
    missing.inputs.push(folder.path().join("missing"));
    assert!(failure(&missing).starts_with(&format!("cannot read {place}/missing: ")));
    let mut few = options(&folder, &[("a", good)], jsonl.clone());
    few.validation = 0.5;
    assert!(failure(&few).starts_with("1 documents are too few to set 0.5 of them apart for validation"));
    few.validation = 1.0;
    assert_eq!(failure(&few), "validation fraction 1: must be from 0 to below 1");
    few.inputs.clear();
    few.validation = 0.0;
    assert_eq!(failure(&few), "name at least one input file");
}

#[test]
fn an_interrupt_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(&folder, &[("a", "some text")], Format::Text(TextSplit::File));
    options.stop.store(true, Ordering::Relaxed);
    assert_eq!(failure(&options), "interrupted: nothing is left behind");
    options.stop.store(false, Ordering::Relaxed);
    prepare(&options, &mut |_| {}).unwrap();
}

#[test]
fn what_is_there_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let options = options(&folder, &[("a", "text")], Format::Text(TextSplit::File));
    fs::create_dir(folder.path().join("out.partial")).unwrap();
    assert!(failure(&options).starts_with(&format!("{place}/out.partial exists: ")));
    fs::remove_dir(folder.path().join("out.partial")).unwrap();
    fs::create_dir(&options.out).unwrap();
    prepare(&options, &mut |_| {}).expect("an empty folder may be used");
    let before = contents(&options.out);
    assert_eq!(failure(&options), format!("{place}/out is not empty: name a new folder"));
    assert_eq!(contents(&options.out), before);
    let file = PrepareOptions { out: folder.path().join("a"), ..options.clone() };
    assert!(failure(&file).starts_with(&format!("cannot use {place}/a: ")));
    let nested = PrepareOptions { out: folder.path().join("new/er/out"), ..options };
    prepare(&nested, &mut |_| {}).unwrap();
    assert_eq!(contents(&nested.out), before);
}
