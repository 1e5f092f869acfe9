use super::*;
use crate::mutate;
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::path::Path;

/// A file with the given header text and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn error(bytes: &[u8]) -> String {
    SafeTensors::parse(bytes).unwrap_err().to_string()
}

/// Three tensors and metadata, as the writer writes them.
fn sample() -> Vec<u8> {
    let mut writer = Writer::new();
    writer.metadata("step", 12);
    writer.metadata("note", "a \"quoted\" é");
    writer.add("w", &[2, 3], Data::F32(&[1.0, -2.0, 0.5, f32::MIN_POSITIVE, 3e38, -0.0])).unwrap();
    writer.add("tokens", &[3], Data::U16(&[0, 1, 65535])).unwrap();
    writer.add("a.scalar", &[], Data::F64(&[0.1])).unwrap();
    writer.add("none", &[0, 7], Data::I64(&[])).unwrap();
    let mut out = Vec::new();
    writer.write(&mut out).unwrap();
    out
}

#[test]
fn what_is_written_is_read() {
    let bytes = sample();
    let file = SafeTensors::parse(&bytes).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), ["a.scalar", "none", "tokens", "w"]);
    assert_eq!(file.metadata_value::<u64>("step").unwrap(), 12);
    assert_eq!(file.metadata()["note"], "a \"quoted\" é");
    assert_eq!(file.info("w").unwrap().shape, [2, 3]);
    assert_eq!(file.get_f32("w").unwrap(), [1.0, -2.0, 0.5, f32::MIN_POSITIVE, 3e38, -0.0]);
    assert_eq!(file.get_f64("a.scalar").unwrap(), [0.1]);
    assert_eq!(file.get_f32("a.scalar").unwrap(), [0.1f32]);
    assert_eq!(file.get_i64("tokens").unwrap(), [0, 1, 65535]);
    assert_eq!(file.get_i64("none").unwrap(), [0i64; 0]);
    assert_eq!(file.expect_shape("w", &[2, 3]), Ok(()));
}

#[test]
fn requests_that_cannot_be_met_say_why() {
    let bytes = sample();
    let file = SafeTensors::parse(&bytes).unwrap();
    let text = |e: engine::Error| e.to_string();
    assert_eq!(text(file.get_f32("v").unwrap_err()), "there is no tensor \"v\" in the file");
    assert_eq!(text(file.get_f64("tokens").unwrap_err()), "tensor \"tokens\" is U16, expected floats");
    assert_eq!(text(file.get_i64("w").unwrap_err()), "tensor \"w\" is F32, expected integers");
    assert_eq!(text(file.expect_shape("w", &[6]).unwrap_err()), "tensor \"w\" has shape [2, 3], expected [6]");
    assert_eq!(
        text(file.metadata_value::<u64>("note").unwrap_err()),
        "metadata \"note\": \"a \\\"quoted\\\" é\" is not a valid u64"
    );
    assert!(file.metadata_value::<u64>("x").is_err());
    let missing = SafeTensors::open(Path::new("no/such/file")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read no/such/file"), "{missing}");
}

#[test]
fn bytes_depend_on_the_content_alone_and_are_aligned() {
    let mut writer = Writer::new();
    writer.add("none", &[0, 7], Data::I64(&[])).unwrap();
    writer.add("a.scalar", &[], Data::F64(&[0.1])).unwrap();
    writer.add("tokens", &[3], Data::U16(&[0, 1, 65535])).unwrap();
    writer.add("w", &[2, 3], Data::F32(&[1.0, -2.0, 0.5, f32::MIN_POSITIVE, 3e38, -0.0])).unwrap();
    writer.metadata("note", "a \"quoted\" é");
    writer.metadata("step", 12);
    let mut out = Vec::new();
    writer.write(&mut out).unwrap();
    assert_eq!(out, sample());
    let header = u64::from_le_bytes(out[..8].try_into().unwrap());
    assert_eq!(header % 8, 0);
    let parsed = SafeTensors::parse(&out).unwrap();
    for name in parsed.names() {
        let offset = parsed.bytes(name).unwrap().as_ptr() as usize - out.as_ptr() as usize;
        assert_eq!(offset % parsed.info(name).unwrap().dtype.size(), 0, "{name}");
    }
}

#[test]
fn the_writer_refuses_contradictions() {
    let mut writer = Writer::new();
    let wrong = writer.add("w", &[2, 2], Data::U8(&[1, 2, 3])).unwrap_err().to_string();
    assert_eq!(wrong, "tensor \"w\" has 3 elements, which is not shape [2, 2]");
    assert!(writer.add("w", &[usize::MAX, 2], Data::F32(&[])).is_err());
    assert!(writer.add("__metadata__", &[1], Data::U8(&[1])).is_err());
    writer.add("w", &[1], Data::U8(&[1])).unwrap();
    assert!(writer.add("w", &[1], Data::U8(&[1])).is_err());
}

#[test]
fn every_type_converts() {
    let header = r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[2],"data_offsets":[4,8]},
        "c":{"dtype":"U64","shape":[1],"data_offsets":[8,16]},"d":{"dtype":"I32","shape":[1],"data_offsets":[16,20]},
        "e":{"dtype":"I8","shape":[1],"data_offsets":[20,21]},"f":{"dtype":"BOOL","shape":[1],"data_offsets":[21,22]},
        "g":{"dtype":"I16","shape":[1],"data_offsets":[22,24]},"h":{"dtype":"U32","shape":[1],"data_offsets":[24,28]}}   "#;
    let mut data = Vec::new();
    [1.5f32, -3e38].iter().for_each(|&x| data.extend(bf16::from_f32(x).to_le_bytes()));
    [1.5f32, 65504.0].iter().for_each(|&x| data.extend(f16::from_f32(x).to_le_bytes()));
    data.extend(u64::MAX.to_le_bytes());
    data.extend((-7i32).to_le_bytes());
    data.extend([0x80, 1, 0xfe, 0xff]);
    data.extend(u32::MAX.to_le_bytes());
    let bytes = file(header, &data);
    let file = SafeTensors::parse(&bytes).unwrap();
    assert_eq!(file.get_f32("a").unwrap(), [1.5, bf16::from_f32(-3e38).to_f32()]);
    assert_eq!(file.get_f64("b").unwrap(), [1.5, 65504.0]);
    assert!(file.get_i64("c").unwrap_err().to_string().contains("beyond"));
    assert_eq!(file.get_i64("d").unwrap(), [-7]);
    assert_eq!(file.get_i64("e").unwrap(), [-128]);
    assert!(file.get_i64("f").is_err() && file.get_f32("f").is_err());
    assert_eq!(file.get_i64("g").unwrap(), [-2]);
    assert_eq!(file.get_i64("h").unwrap(), [i64::from(u32::MAX)]);
}

#[test]
fn malformed_files_are_refused() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"t":{}}}"#, tensor(dtype, shape, offsets));
    let two = |a: &str, b: &str| format!(r#"{{"a":{},"b":{}}}"#, tensor("U8", "[2]", a), tensor("U8", "[2]", b));
    let cases = [
        (file(&one("U8", "[2]", "[0,2]"), b"x"), "ends at byte 2"),
        (file(&one("U8", "[2]", "[0,2]"), b"xyz"), "1 trailing bytes"),
        (file(&one("F32", "[2]", "[0,4]"), b"abcd"), "does not take the 4 bytes"),
        (file(&one("U8", "[4294967296,4294967296,4294967296]", "[0,0]"), b""), "does not take"),
        (file(&one("U8", "[2]", "[2,0]"), b"ab"), "before they begin"),
        (file(&one("U8", "[2]", "[0,2,2]"), b"ab"), "data_offsets has 3 numbers"),
        (file(&one("U8", "[-2]", "[0,2]"), b"ab"), "shape: expected an integer"),
        (file(&one("U8", "[1.5]", "[0,2]"), b"ab"), "shape: expected an integer"),
        (file(&one("F8_E4M3", "[2]", "[0,2]"), b"ab"), "unknown dtype \"F8_E4M3\", expected one of F64, F32"),
        (file(&two("[0,2]", "[1,3]"), b"abc"), "tensor \"b\" overlaps"),
        (file(&two("[0,2]", "[0,2]"), b"ab"), "overlaps"),
        (file(&two("[0,2]", "[3,5]"), b"abcde"), "leaves a gap"),
        (file(&one("U8", "[2]", "[1,3]"), b"abc"), "leaves a gap"),
        (file(r#"{"t":{"dtype":"U8","shape":[1]}}"#, b"a"), "\"data_offsets\" is missing"),
        (file(r#"{"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}"#, b"a"), "unknown key \"x\""),
        (file(r#"{"t":1}"#, b""), "tensor \"t\": expected an object"),
        (file(r#"{"__metadata__":{"a":1}}"#, b""), "__metadata__: a: expected a string"),
        (file("[]", b""), "must begin with '{'"),
        (file(" {}", b""), "must begin with '{'"),
        (file("{} x", b""), "expected the end"),
        (file("", b""), "must begin with '{'"),
        (b"1234567".to_vec(), "7 bytes are too few"),
        (u64::MAX.to_le_bytes().to_vec(), "claims 18446744073709551615 bytes; 0 follow"),
        ([&100u64.to_le_bytes()[..], b"{}"].concat(), "claims 100 bytes; 2 follow"),
    ];
    for (bytes, expected) in cases {
        let found = error(&bytes);
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        assert!(!found.contains('\n'));
    }
    let twice = format!(r#"{{"t":{0},"t":{0}}}"#, tensor("U8", "[0]", "[0,0]"));
    assert!(error(&file(&twice, b"")).contains("\"t\" appears twice"));
    let long = file(&format!("{{{}}}", " ".repeat(MAX_HEADER)), b"");
    assert!(error(&long).contains("at most 16777216 are allowed"));
}

/// Damage in the header or the length is refused, or leaves a file in which every byte still belongs to one tensor.
#[test]
fn damaged_files_never_panic() {
    let good = sample();
    let mut accepted = 0;
    for case in 0..mutate::cases(20_000) {
        let bytes = mutate::damage(&good, case);
        if let Ok(file) = SafeTensors::parse(&bytes) {
            accepted += 1;
            let covered: usize = file.names().map(|name| file.bytes(name).unwrap().len()).sum();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(8 + header + covered, bytes.len(), "case {case}");
            for name in file.names() {
                let elements: usize = file.info(name).unwrap().shape.iter().product();
                let lengths = [file.get_f32(name).map(|v| v.len()), file.get_i64(name).map(|v| v.len())];
                assert!(lengths.iter().flatten().all(|&n| n == elements), "case {case}");
            }
        }
    }
    assert!(accepted > 100, "only {accepted} files got past the reader: the damage is too coarse to test it");
    for length in 0..good.len() {
        assert!(SafeTensors::parse(&good[..length]).is_err(), "cut to {length} bytes");
    }
}

/// The golden numbers, written by Python's safetensors: complete, consistent with their own formulas, and unchanged by
/// being written again.
#[test]
fn golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/golden_tiny.safetensors");
    let golden = SafeTensors::open(&path).unwrap();
    let size = |key: &str| golden.metadata_value::<usize>(key).unwrap();
    let latents = size("n_layers") * size("z_per_layer");
    let posterior = [size("batch"), latents, size("dim")];
    assert_eq!(posterior, [2, 8, 32]);
    assert_eq!(golden.metadata_value::<f64>("norm_eps").unwrap(), 1e-5);
    golden.expect_shape("w.tok_embeddings.weight", &[size("vocab"), size("dim")]).unwrap();
    assert_eq!(golden.get_i64("targets").unwrap().iter().filter(|&&t| t == -1).count(), 1);
    let [mu, logvar, eps, z, kl] = ["mu", "logvar", "eps", "z", "kl"].map(|name| golden.get_f64(name).unwrap());
    golden.expect_shape("mu", &posterior).unwrap();
    for i in 0..z.len() {
        assert!((z[i] - (mu[i] + (0.5 * logvar[i]).exp() * eps[i])).abs() < 1e-14);
    }
    let per_sample = latents * size("dim");
    for (sample, &expected) in kl.iter().enumerate() {
        let terms =
            (sample * per_sample..(sample + 1) * per_sample).map(|i| mu[i] * mu[i] + logvar[i].exp() - logvar[i] - 1.0);
        assert!((0.5 * terms.sum::<f64>() / expected - 1.0).abs() < 1e-12);
    }

    let integers: BTreeMap<&str, Vec<i64>> =
        golden.names().filter_map(|n| Some((n, golden.get_i64(n).ok()?))).collect();
    let floats: BTreeMap<&str, Vec<f64>> = golden.names().filter_map(|n| Some((n, golden.get_f64(n).ok()?))).collect();
    let mut writer = Writer::new();
    golden.metadata().iter().for_each(|(key, value)| writer.metadata(key, value));
    for (name, x) in &integers {
        writer.add(name, &golden.info(name).unwrap().shape, Data::I64(x)).unwrap();
    }
    for (name, x) in &floats {
        writer.add(name, &golden.info(name).unwrap().shape, Data::F64(x)).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    let again = SafeTensors::parse(bytes).unwrap();
    assert_eq!(again.metadata(), golden.metadata());
    assert!(again.names().eq(golden.names()));
    for name in golden.names() {
        assert_eq!(again.info(name).unwrap().shape, golden.info(name).unwrap().shape);
        assert_eq!(again.bytes(name).unwrap(), golden.bytes(name).unwrap(), "{name}");
    }
}
