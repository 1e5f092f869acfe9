use super::*;
use crate::data::shards::{self, HEADER, ShardWriter};
use crate::data::{Bytes, has_validation, memory, tokenizer_of};
use crate::json;
use std::fs;
use tempfile::TempDir;

fn open(path: &Path, split: Split) -> Result<Dataset> {
    Dataset::open(path, split, &(Arc::new(Bytes) as Arc<dyn Tokenizer>))
}

fn message(result: Result<Dataset>) -> String {
    let message = result.err().expect("must be refused").to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

fn all(data: &Dataset) -> Vec<u16> {
    let mut tokens = vec![0; data.len() as usize];
    data.read(0, &mut tokens).unwrap();
    tokens.into_iter().map(|id| id as u16).collect()
}

fn raw(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

fn llm_c(tokens: &[u16]) -> Vec<u8> {
    [shards::header(tokens.len() as u32).to_vec(), raw(tokens)].concat()
}

/// A prepared folder of small shards with 40 documents.
fn prepared() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut writers = [Split::Train, Split::Validation].map(|split| ShardWriter::new(folder.path(), split, 100));
    for i in 0..40 {
        let text = format!("document number {i}");
        let tokens: Vec<u16> = text.bytes().map(u16::from).chain([257]).collect();
        writers[usize::from(i % 5 == 0)].push(&tokens, text.len() as u64, true).unwrap();
    }
    let [train, validation] = writers.map(|writer| writer.finish().unwrap());
    fs::write(folder.path().join(MANIFEST), json::pretty(&Manifest::new(Bytes.name(), train, validation))).unwrap();
    folder
}

#[test]
fn shards_of_others_are_split_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("b_train_000002.bin", llm_c(&[2, 3])),
        ("b_train_000001.bin", llm_c(&[1])),
        ("b_val_000000.bin", llm_c(&[97, 10, 98, 257])),
        ("a-valve.BIN", raw(&[0])),
        ("notes.txt", b"x".to_vec()),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    assert_eq!(all(&open(folder.path(), Split::Train).unwrap()), [0, 1, 2, 3]);
    let validation = open(folder.path(), Split::Validation).unwrap();
    assert_eq!((all(&validation), validation.bytes), (vec![97, 10, 98, 257], 3));
    assert!(has_validation(folder.path()).unwrap());
    let file = folder.path().join("b_val_000000.bin");
    assert_eq!(all(&open(&file, Split::Train).unwrap()), all(&validation), "a single file belongs to either split");
    assert!(!has_validation(&file).unwrap() && tokenizer_of(&file).unwrap().is_none());
}

#[test]
fn prepared_data_are_read_across_shards() {
    let out = prepared();
    let manifest = Manifest::read(out.path()).unwrap().unwrap();
    assert!(manifest.train.shards.len() > 3);
    for split in [Split::Train, Split::Validation] {
        let (data, part) = (open(out.path(), split).unwrap(), manifest.part(split));
        assert_eq!((data.len(), data.bytes), (part.tokens, part.bytes));
        assert_eq!(data.document_ends().unwrap().len() as u64, part.documents);
        let tokens = all(&data);
        for (at, len) in [(0, 1), (99, 2), (95, 210), (data.len() - 1, 1)] {
            let mut some = vec![0; len.min((data.len() - at) as usize)];
            data.read(at, &mut some).unwrap();
            assert!(some.iter().zip(&tokens[at as usize..]).all(|(&a, &b)| a == i32::from(b)));
        }
    }
    let shard = out.path().join("train-00001.bin");
    for path in [out.path(), &shard] {
        assert_eq!(tokenizer_of(path).unwrap(), Some(Bytes.name()));
    }
    assert_eq!(open(&shard, Split::Train).unwrap().len(), 100);
}

#[test]
fn bad_data_gets_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let (path, place) = (folder.path(), folder.path().display());
    for (split, name) in [(Split::Train, "train"), (Split::Validation, "validation")] {
        assert!(message(open(path, split)).starts_with(&format!("{place} holds no {name} shards, neither by ")));
    }
    let missing = message(open(&path.join("missing"), Split::Train));
    assert!(missing.starts_with(&format!("cannot read {place}/missing: ")), "{missing}");
    let bad = path.join("bad.bin");
    for (bytes, said) in [
        (vec![], "it has no tokens"),
        (
            llm_c(&[1, 2, 258, 999]),
            "token 2 has id 258, but tokenizer bytes has 258 ids: the file was made with another tokenizer, or is \
             damaged",
        ),
    ] {
        fs::write(&bad, bytes).unwrap();
        assert_eq!(message(open(&bad, Split::Train)), format!("{place}/bad.bin: {said}"));
    }
    // Tokens with nanoGPT's own encoding file, in a folder or as a single file.
    fs::write(&bad, llm_c(&[1, 2])).unwrap();
    fs::write(path.join(ENCODING), "").unwrap();
    for named in [path, &bad] {
        let said = message(open(named, Split::Train));
        assert!(said.starts_with(&format!("{place}/meta.pkl: these tokens have an encoding of their own")), "{said}");
    }
    let out = prepared();
    let path = out.path().join(MANIFEST);
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, said) in [
        (
            "\"tokenizer\": \"bytes\"",
            "\"tokenizer\": \"gpt2\"",
            "train-00000.bin was prepared with tokenizer gpt2, but the model has bytes",
        ),
        ("ltm tokens", "ltm", "dataset.json: format is \"ltm\", not \"ltm tokens\""),
        ("\"version\": 2", "\"version\": 3", "dataset.json: version 3; this program reads 2: prepare the data again"),
    ] {
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        assert_eq!(message(open(out.path(), Split::Train)), format!("{}/{said}", out.path().display()));
    }
}

/// Flipped bits and truncations of a prepared shard are found.
#[test]
fn damaged_shards_are_found() {
    let out = prepared();
    let path = out.path().join("train-00001.bin");
    let good = fs::read(&path).unwrap();
    let mut damaged: Vec<Vec<u8>> = (0..good.len()).step_by(7).map(|len| good[..len].to_vec()).collect();
    // Every bit of the header, and one of every few bytes behind it.
    for bit in (0..96).chain((HEADER * 8..good.len() * 8).step_by(19)) {
        damaged.push(good.clone());
        damaged.last_mut().unwrap()[bit / 8] ^= 1 << (bit % 8);
    }
    let mut error = String::new();
    for bytes in damaged {
        fs::write(&path, bytes).unwrap();
        error = message(open(out.path(), Split::Train));
        assert!(error.contains("train-00001.bin"), "{error}");
    }
    assert!(error.contains("is damaged: its checksum is "), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(message(open(out.path(), Split::Train)).starts_with("cannot read "));
    fs::write(&path, &good).unwrap();
    open(out.path(), Split::Train).unwrap();
}

#[test]
fn the_end_can_be_set_apart() {
    let text: Vec<u16> = (0..10).flat_map(|i| [65 + i, 66, 67, 257]).collect();
    let (first, rest) = memory(&text).set_apart(0.25).unwrap();
    assert_eq!((first.len(), rest.len()), (32, 8));
    assert_eq!([all(&first), all(&rest)].concat(), text);
    assert_eq!((first.bytes, rest.bytes), (24, 6));
    assert_eq!(rest.document_ends().unwrap(), [4, 8]);
    let (a, b) = rest.set_apart(0.5).unwrap();
    assert_eq!((all(&a), all(&b)), (text[32..36].to_vec(), text[36..].to_vec()));
    // Across files, at the first end of a document from the wanted place on.
    let folder = prepared();
    let data = open(folder.path(), Split::Train).unwrap();
    let ends = data.document_ends().unwrap();
    for fraction in [0.1, 0.3, 0.7, 0.999] {
        let (first, rest) = data.set_apart(fraction).unwrap();
        assert_eq!([all(&first), all(&rest)].concat(), all(&data));
        let wanted = ((1.0 - fraction) * data.len() as f64) as u64;
        assert_eq!(Some(&first.len()), ends.iter().find(|&&end| end >= wanted));
        let moved = rest.document_ends().unwrap().into_iter().map(|end| first.len() + end);
        assert_eq!(first.document_ends().unwrap().into_iter().chain(moved).collect::<Vec<_>>(), ends);
    }
    // A single document can only be cut in its middle.
    let (first, rest) = memory(&[65; 100]).set_apart(0.1).unwrap();
    assert_eq!((first.len(), rest.len()), (90, 10));
    assert!(memory(&[65]).set_apart(0.1).is_err());
}
