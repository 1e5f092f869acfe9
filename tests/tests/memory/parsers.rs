//! Tests parsers with damaged input: no panic, a one-line error, memory in proportion to the input. For a million
//! inputs each: `LTM_FUZZ_CASES=1000000 cargo test --release damaged`.

use crate::{BYTES, TURN};
use engine::{Error, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use lab::text::documents::{Piece, Pieces};
use lab::text::encode::encode_all;
use lab::text::{Column, Format, TextSplit, tokenizer};
use lab::toml_file;
use ltm::config::{Choice, Config, Tokenizer, parameter_count};
use ltm::data::Bytes;
use ltm::data::folder::{Manifest, Part, ShardEntry};
use ltm::data::shards::{self, payload_start};
use ltm::json;
use ltm::mutate;
use ltm::run::Line;
use ltm::safetensors::{Dtype, SafeTensors};
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::cell::Cell;
use std::io::{Cursor, Write};
use std::path::Path;

/// The most bytes that a parser may allocate in all: a constant for messages, and a multiple of its input. A parser
/// that trusts a length field allocates far more.
fn most(input: &[u8]) -> usize {
    (16 << 10) + 64 * input.len()
}

/// Runs `parse` on damaged versions of `good`. It must accept some of them; `accepted` gets their results.
fn damaged<T>(good: &[u8], usual: u32, parse: impl Fn(&[u8]) -> Result<T>, accepted: impl Fn(&[u8], T)) {
    let _turn = TURN.read().unwrap();
    assert!(parse(good).is_ok(), "the undamaged input is refused");
    mutate::try_damaged(good, usual, |case, bytes| {
        let before = BYTES.with(Cell::get);
        let parsed = parse(&bytes);
        let asked = BYTES.with(Cell::get) - before;
        assert!(asked <= most(&bytes), "case {case}: {asked} bytes allocated for {} of input", bytes.len());
        let taken = parsed.is_ok();
        match parsed {
            Ok(value) => accepted(&bytes, value),
            Err(error) => assert!(!error.to_string().contains('\n'), "case {case}: {error}"),
        }
        taken
    });
}

/// Three tensors and metadata, written by the `safetensors` crate.
fn sample() -> Vec<u8> {
    let weight: Vec<u8> = [1.0f32, -2.0, 0.5, 4.0, 1e-3, 7.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let bias: Vec<u8> = [0.25f64, -1.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tokens: Vec<u8> = [5i64, -1, 0, 257].iter().flat_map(|x| x.to_le_bytes()).collect();
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let tensors = [
        ("weight", view(Dtype::F32, &[2, 3], &weight)),
        ("bias", view(Dtype::F64, &[3], &bias)),
        ("tokens", view(Dtype::I64, &[1, 4], &tokens)),
    ];
    safetensors::serialize(tensors, Some([("format".into(), "pt".into())].into_iter().collect())).unwrap()
}

/// In an accepted file every byte of data belongs to one tensor.
#[test]
fn damaged_safetensors() {
    damaged(
        &sample(),
        20_000,
        |bytes| SafeTensors::parse(bytes.to_vec()),
        |bytes, file| {
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            let covered: usize = file.names().iter().map(|name| file.bytes(name).unwrap().len()).sum();
            assert_eq!(8 + header + covered, bytes.len());
            for name in file.names() {
                let elements: usize = file.info(&name).unwrap().shape.iter().product();
                let lengths = [file.get_f64(&name).map(|v| v.len()), file.get_i64(&name).map(|v| v.len())];
                assert!(lengths.iter().flatten().all(|&n| n == elements));
            }
        },
    );
}

#[test]
fn damaged_configurations() {
    let good = serde_json::to_string(&Config::preset("tiny").unwrap()).unwrap();
    damaged(
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
}

/// An accepted value is written back in the same form.
#[test]
fn damaged_metrics() {
    let good = r#"{"step":3,"loss":5.25,"nll":5,"kl":0.25,"bits_per_byte":null,"tokens":64,"grad_norm":1e-3,"rate":0.01,"fast_rate":0.3,"seconds":0.5,"tokens_per_second":128,"state":"00ff","skipped":"a \"b\" \u00e9"}"#;
    damaged(
        good.as_bytes(),
        5_000,
        |bytes| json::from_bytes::<Line>(bytes),
        |_, line| {
            let text = json::line(&line);
            assert_eq!(json::line(&json::from_bytes::<Line>(&text).unwrap()), text);
        },
    );
}

#[test]
fn damaged_toml() {
    let good =
        "# two runs\nname = \"a \\u00e9\"\nseeds = [1, 2]\n[train]\nsteps = 1e3\nslow.rate = 0.5\n[[set]]\non = true\n";
    let parse = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).map_err(|e| Error::new(e.to_string()))?;
        toml_file::parse::<Value>(text, Path::new("in.toml"))
    };
    damaged(good.as_bytes(), 5_000, parse, |_, value| assert!(value.is_object()));
}

#[test]
fn damaged_shard_headers() {
    let good: Vec<u8> = shards::header(40).into_iter().chain([5; 80]).collect();
    damaged(
        &good,
        20_000,
        |bytes| payload_start(bytes, bytes.len() as u64),
        |bytes, start| {
            let len = bytes.len() as u64;
            assert!(start <= len && (len - start).is_multiple_of(2));
        },
    );
}

#[test]
fn damaged_manifests() {
    let shard = ShardEntry { file: "train-00000.bin".into(), tokens: 20, sha256: "0f".repeat(32) };
    let train = Part { documents: 3, tokens: 20, bytes: 17, shards: vec![shard] };
    let good = json::pretty(&Manifest::new(Tokenizer::Bytes, train, Part::default()));
    damaged(good.as_bytes(), 5_000, Manifest::parse, |_, _| ());
}

/// Files of every format, compressed or not, through the whole tokenization.
#[test]
fn damaged_documents() {
    let _turn = TURN.read().unwrap();
    let jsonl = "{\"id\": 1, \"text\": \"one \\u00e9\"}\n\n{\"text\": \"two\", \"id\": [2]}\n";
    let csv = "id,text\n1,\"a, \"\"b\"\"\nc\"\n2,plain\n";
    let columns = vec![Column::Name("text".into())];
    for (format, text) in [
        (Format::Text(TextSplit::File), "some words\n\nand more\r\n"),
        (Format::Text(TextSplit::Lines), "some words\n\nand more\r\n"),
        (Format::Text(TextSplit::BlankLines), "some words\n\nand more\r\n"),
        (Format::Jsonl { field: "text".into() }, jsonl),
        (Format::Csv { columns, header: true }, csv),
    ] {
        let plain = text.as_bytes().to_vec();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&plain).unwrap();
        for packed in [gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap(), plain] {
            for case in 0..mutate::cases(300) {
                let bytes = Cursor::new(mutate::damage(&packed, case));
                let pieces = Pieces::of_reader("in", bytes, &format, &Bytes);
                let mut found = 0;
                let count = |_: &Piece, tokens: &[u16], _| {
                    found += tokens.len();
                    Ok(())
                };
                match pieces.and_then(|pieces| encode_all(pieces, count, &mut Err, &mut |_| Ok(()))) {
                    Ok(_) => assert!(found <= 10 * packed.len() + 100, "case {case}: {found} tokens"),
                    Err(error) => assert!(!error.to_string().contains('\n'), "case {case}: {error}"),
                }
            }
        }
    }
}

/// Text of any kind, valid or not, through each tokenizer and back; and ids of any kind.
#[test]
fn damaged_text_through_tokenizers() {
    let _turn = TURN.read().unwrap();
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
