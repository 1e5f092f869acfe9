//! Parsers against damaged input, as somebody meets them who is handed a file: no panic, one line of an error, memory in
//! proportion to the input, and for safetensors the published reader's opinion. A million inputs for each:
//! `LTM_FUZZ_CASES=1000000 cargo test --release -p tests -p ltm --lib --bins --test parsers damaged`.

use ltm::mutate;

use engine::{Error, Result};
use lab::text::tokenizer;
use ltm::config::{Choice, Config, Tokenizer, parameter_count};
use ltm::data::manifest::{Manifest, Part, ShardEntry};
use ltm::data::shards::{self, payload_start};
use ltm::safetensors::{Data, SafeTensors, Writer};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the bytes that this thread has asked for.
struct Counting;

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call goes to the system's allocator unchanged; counting has no effect on memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + layout.size()));
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(memory, layout) }
    }
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.with(|asked| asked.set(asked.get() + size));
        // SAFETY: the caller keeps realloc's contract.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that a parser may ask for at most, in all: a constant for messages, and so many times its input. A length field
/// that is believed asks for far more.
fn most(input: &[u8]) -> usize {
    (16 << 10) + 64 * input.len()
}

/// Runs `parse` on damaged versions of `good`; the number that it took.
fn damaged<T>(good: &[u8], usual: u32, parse: impl Fn(&[u8]) -> Result<T>, mut accepted: impl FnMut(&[u8], T)) -> u32 {
    let mut taken = 0;
    assert!(parse(good).is_ok(), "the undamaged input is refused");
    for case in 0..mutate::cases(usual) {
        let bytes = mutate::damage(good, case);
        let before = ASKED.with(Cell::get);
        let parsed = parse(&bytes);
        let asked = ASKED.with(Cell::get) - before;
        assert!(asked <= most(&bytes), "case {case}: {asked} bytes of memory for {} of input", bytes.len());
        match parsed {
            Ok(value) => {
                taken += 1;
                accepted(&bytes, value);
            }
            Err(error) => assert!(!error.to_string().contains('\n'), "case {case}: {error}"),
        }
    }
    taken
}

/// Three tensors and metadata.
fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.metadata("format", "pt");
    writer.add("weight", &[2, 3], Data::F32(&[1.0, -2.0, 0.5, 4.0, 1e-3, 7.0])).unwrap();
    writer.add("bias", &[3], Data::F64(&[0.25, -1.0, 3.0])).unwrap();
    writer.add("tokens", &[1, 4], Data::I64(&[5, -1, 0, 257])).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    bytes
}

/// What we take, the published reader takes too and reads the same from it; so what it refuses, we refuse.
#[test]
fn damaged_safetensors() {
    let taken = damaged(
        &sample(),
        20_000,
        |bytes| SafeTensors::parse(bytes.to_vec()),
        |bytes, ours| {
            let theirs =
                safetensors::SafeTensors::deserialize(bytes).unwrap_or_else(|e| panic!("the published reader: {e}"));
            assert_eq!(theirs.len(), ours.names().count());
            for (name, view) in theirs.tensors() {
                assert_eq!(view.shape(), ours.info(&name).unwrap().shape, "{name}");
                assert_eq!(view.data(), ours.bytes(&name).unwrap(), "{name}");
            }
        },
    );
    assert!(taken > 100, "only {taken} inputs got past the reader");
}

/// Both directions: what we write, the published reader reads; what it writes, we read.
#[test]
fn safetensors_are_exchanged_with_the_published_crate() {
    let bytes = sample();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("weight").unwrap().shape(), [2, 3]);
    assert_eq!(theirs.tensor("weight").unwrap().dtype(), safetensors::Dtype::F32);
    let again = safetensors::serialize(theirs.tensors(), None).unwrap();
    let ours = SafeTensors::parse(again).unwrap();
    assert_eq!(ours.get_f64("bias").unwrap(), [0.25, -1.0, 3.0]);
    assert_eq!(ours.get_i64("tokens").unwrap(), [5, -1, 0, 257]);
    assert_eq!(ours.info("weight").unwrap().shape, [2, 3]);
}

#[test]
fn damaged_configurations() {
    let good = serde_json::to_string(&Config::preset("tiny").unwrap()).unwrap();
    let taken = damaged(
        good.as_bytes(),
        5_000,
        |bytes| serde_json::from_slice::<Config>(bytes).map_err(|e| Error::new(e.to_string())),
        |_, config| {
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), config);
            if let Ok(resolved) = config.resolved() {
                assert!(parameter_count(&resolved.model) > 0);
            }
        },
    );
    assert!(taken > 100, "only {taken} inputs got past the reader");
}

#[test]
fn damaged_shard_headers() {
    let good: Vec<u8> = shards::header(40).into_iter().chain([5; 80]).collect();
    let taken = damaged(&good, 20_000, payload_start, |bytes, start| {
        assert!(start <= bytes.len() && (bytes.len() - start).is_multiple_of(2));
    });
    assert!(taken > 100, "only {taken} inputs got past the reader");
}

#[test]
fn damaged_manifests() {
    let shard = |i: u64| ShardEntry { file: format!("train-{i:05}.bin"), tokens: 10 + i, checksum: u64::MAX - i };
    let train = Part { documents: 3, tokens: 21, bytes: 18, shards: vec![shard(0), shard(1)] };
    let good = Manifest { tokenizer: "bytes".into(), vocab: 258, train, validation: Part::default() }.to_json();
    damaged(good.as_bytes(), 5_000, Manifest::parse, |_, manifest| {
        assert!(manifest.train.shards.iter().all(|shard| !shard.file.contains('/')));
    });
}

/// Text of any kind, valid or not, through each tokenizer and back; and ids of any kind.
#[test]
fn damaged_text_through_tokenizers() {
    let good = "The quick brown fox's 13 jumps,\n\tover  the lazy dog. \u{e9}\u{4e2d}\u{1f642} <|endoftext|> 's 'll  ";
    for &(name, _) in Tokenizer::ALL {
        let tokenizer = tokenizer(name);
        for case in 0..mutate::cases(5_000) {
            let text = mutate::damage(good.as_bytes(), case);
            let mut ids = Vec::new();
            match tokenizer.encode(&text, &mut ids) {
                Ok(()) => {
                    assert!(ids.iter().all(|&id| id != tokenizer.begin() && id != tokenizer.end()), "case {case}");
                    assert_eq!(tokenizer.decode(&ids).unwrap(), text, "case {case}");
                }
                Err(error) => {
                    assert!(tokenizer.needs_utf8() && std::str::from_utf8(&text).is_err(), "case {case}: {error}");
                }
            }
            let any: Vec<u16> = text.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            let beyond = any.iter().any(|&id| usize::from(id) >= tokenizer.vocab());
            assert_eq!(tokenizer.decode(&any).is_err(), beyond, "case {case}");
            if let Some(at) = tokenizer.last_cut(&text) {
                assert!(0 < at && at <= text.len(), "case {case}");
            }
        }
    }
}
