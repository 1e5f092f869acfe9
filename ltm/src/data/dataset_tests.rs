use super::*;
use crate::data::folder::tokenizer_of;
use crate::data::{Bytes, ShardWriter, shards};
use crate::mutate;
use tempfile::TempDir;

fn byte_tokenizer() -> Arc<dyn Tokenizer> {
    Arc::new(Bytes)
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
fn prepared() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_path_buf();
    let mut writers = [Split::Train, Split::Validation].map(|split| ShardWriter::new(&out, split, 100));
    for i in 0..40 {
        let text = format!("document number {i}");
        let mut tokens: Vec<u16> = text.bytes().map(u16::from).collect();
        tokens.push(257);
        writers[usize::from(i % 5 == 0)].push(&tokens, text.len() as u64, true).unwrap();
    }
    let [train, validation] = writers.map(|writer| writer.finish().unwrap());
    let manifest = Manifest { tokenizer: "bytes".into(), vocab: 258, train, validation };
    fs::write(out.join(manifest::FILE), manifest.to_json()).unwrap();
    (folder, out)
}

#[test]
fn shards_of_every_kind_are_one_stream() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let expected = [97, 10, 98, 257];
    for path in [write("nano.bin", &raw(&expected)), write("llm.bin", &llm_c(&expected))] {
        let data = Dataset::open(&path, Split::Train, &byte_tokenizer()).unwrap();
        assert_eq!((all(&data), data.bytes()), (expected.to_vec(), 3), "{}", path.display());
        assert_eq!(splits(&path).unwrap(), [Split::Train]);
        assert_eq!(tokenizer_of(&path).unwrap(), None);
    }
}

#[test]
fn folders_of_others_are_split_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("b_train_000002.bin", llm_c(&[2, 3])),
        ("b_train_000001.bin", llm_c(&[1])),
        ("b_val_000000.bin", llm_c(&[9])),
        ("a-valve.bin", raw(&[0])),
        ("notes.txt", b"x".to_vec()),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let open = |split| all(&Dataset::open(folder.path(), split, &byte_tokenizer()).unwrap());
    assert_eq!(open(Split::Train), [0, 1, 2, 3]);
    assert_eq!(open(Split::Validation), [9]);
    assert_eq!(splits(folder.path()).unwrap(), [Split::Train, Split::Validation]);
}

#[test]
fn prepared_data_is_read_across_shards() {
    let (_guard, out) = prepared();
    let manifest = Manifest::read(&out).unwrap().unwrap();
    assert!(manifest.train.shards.len() > 3);
    for split in [Split::Train, Split::Validation] {
        let data = Dataset::open(&out, split, &byte_tokenizer()).unwrap();
        let part = manifest.part(split);
        assert_eq!((data.len(), data.bytes(), data.checksum()), (part.tokens, part.bytes, part.checksum()));
        assert_eq!(data.document_ends().len() as u64, part.documents);
        let tokens = all(&data);
        for (at, len) in [(0, 1), (99, 2), (95, 210), (data.len() - 1, 1)] {
            let mut some = vec![0; len.min((data.len() - at) as usize)];
            data.read(at, &mut some).unwrap();
            assert!(some.iter().zip(&tokens[at as usize..]).all(|(&a, &b)| a == i32::from(b)));
        }
    }
    assert_eq!(tokenizer_of(&out).unwrap().as_deref(), Some("bytes"));
    assert_eq!(tokenizer_of(&out.join("train-00001.bin")).unwrap().as_deref(), Some("bytes"));
    let one = Dataset::open(&out.join("train-00001.bin"), Split::Train, &byte_tokenizer()).unwrap();
    assert_eq!(one.len(), 100);
}

#[test]
fn bad_data_gets_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        message(Dataset::open(&path, Split::Train, &byte_tokenizer()))
    };
    let open = |path: &Path, split| message(Dataset::open(path, split, &byte_tokenizer()));
    let nothing = "holds no data: neither dataset.json nor *.bin; `ltm data prepare` makes them from text";
    assert_eq!(open(folder.path(), Split::Train), format!("{place} {nothing}"));
    assert!(open(&folder.path().join("missing"), Split::Train).starts_with(&format!("cannot read {place}/missing: ")));
    assert_eq!(write("empty.bin", b""), format!("{place}/empty.bin: the file is empty"));
    assert_eq!(
        write("bad.bin", &llm_c(&[1, 2, 258, 999])),
        format!(
            "{place}/bad.bin: token 2 has id 258, but tokenizer bytes has 258 ids: made with another tokenizer, or damaged"
        )
    );
    fs::remove_file(folder.path().join("bad.bin")).unwrap();
    fs::remove_file(folder.path().join("empty.bin")).unwrap();
    fs::write(folder.path().join("train.bin"), raw(&[1])).unwrap();
    assert_eq!(
        open(folder.path(), Split::Validation),
        format!("{place} has no validation shards: prepare with `--validation 0.01`, or name another file or folder")
    );
    fs::rename(folder.path().join("train.bin"), folder.path().join("val.bin")).unwrap();
    assert_eq!(open(folder.path(), Split::Train), format!("{place} has validation shards only"));
}

/// Any flipped bit and any cut of a prepared shard is found, in its header and in its tokens.
#[test]
fn damaged_shards_are_found() {
    let (_guard, out) = prepared();
    let path = out.join("train-00001.bin");
    let good = fs::read(&path).unwrap();
    let header_words = 0..96;
    let tokens = shards::HEADER * 8..good.len() * 8;
    for bit in header_words.chain(tokens) {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bytes).unwrap();
        let error = message(Dataset::open(&out, Split::Train, &byte_tokenizer()));
        assert!(error.contains("train-00001.bin"), "{error}");
    }
    for len in (0..good.len()).step_by(7) {
        fs::write(&path, &good[..len]).unwrap();
        assert!(message(Dataset::open(&out, Split::Train, &byte_tokenizer())).contains("train-00001.bin"));
    }
    fs::write(&path, llm_c(&[65; 99])).unwrap();
    assert!(
        message(Dataset::open(&out, Split::Train, &byte_tokenizer())).ends_with("has 99 tokens, dataset.json says 100")
    );
    fs::remove_file(&path).unwrap();
    assert!(message(Dataset::open(&out, Split::Train, &byte_tokenizer())).starts_with("cannot read "));
    fs::write(&path, &good).unwrap();
    Dataset::open(&out, Split::Train, &byte_tokenizer()).unwrap();
}

#[test]
fn a_tokenizer_that_does_not_fit_is_named() {
    let (_guard, out) = prepared();
    let path = out.join(manifest::FILE);
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"bytes\"", "\"gpt2\"")).unwrap();
    assert_eq!(
        message(Dataset::open(&out, Split::Train, &byte_tokenizer())),
        format!(
            "{}/train-00000.bin was prepared with tokenizer gpt2 (258 ids), the model has bytes (258 ids)",
            out.display()
        )
    );
}

/// Damage of any kind to any file of a folder: an error or the data, never a panic.
#[test]
fn damage_never_panics() {
    let (_guard, out) = prepared();
    for name in ["train-00000.bin", manifest::FILE] {
        let path = out.join(name);
        let good = fs::read(&path).unwrap();
        for case in 0..mutate::cases(300) {
            fs::write(&path, mutate::damage(&good, case)).unwrap();
            match Dataset::open(&out, Split::Train, &byte_tokenizer()) {
                Ok(data) => drop(all(&data)),
                Err(error) => assert!(!error.to_string().contains('\n'), "{error}"),
            }
        }
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn the_end_can_be_set_apart() {
    let text: Vec<u16> = (0..10).flat_map(|i| [65 + i, 66, 67, 257]).collect();
    let data = Dataset::from_tokens("memory", text.clone(), &byte_tokenizer()).unwrap();
    let (first, rest) = data.hold_out(0.25).unwrap();
    assert_eq!((first.len(), rest.len()), (32, 8));
    assert_eq!([all(&first), all(&rest)].concat(), text);
    assert_eq!((first.bytes(), rest.bytes()), (24, 6));
    assert_eq!(rest.document_ends(), [4, 8]);
    let (a, b) = rest.hold_out(0.5).unwrap();
    assert_eq!((all(&a), all(&b)), (text[32..36].to_vec(), text[36..].to_vec()));
    // A single document can only be cut inside.
    let one = Dataset::from_tokens("memory", vec![65; 100], &byte_tokenizer()).unwrap();
    let (first, rest) = one.hold_out(0.1).unwrap();
    assert_eq!((first.len(), rest.len()), (90, 10));
    assert!(Dataset::from_tokens("memory", vec![65], &byte_tokenizer()).unwrap().hold_out(0.1).is_err());
    assert_eq!(message(Dataset::from_tokens("memory", vec![], &byte_tokenizer())), "memory holds no token");
}
