use super::*;
use ::safetensors::tensor::TensorView;

/// A file with the given header text and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn error(bytes: &[u8]) -> String {
    SafeTensors::parse(bytes).unwrap_err().to_string()
}

/// A tensor of every type and metadata, written by the `safetensors` crate.
fn sample() -> Vec<u8> {
    let w: Vec<u8> = [1.0f32, -2.0, 0.5, f32::MIN_POSITIVE, 3e38, -0.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let scalar = 0.1f64.to_le_bytes();
    let tokens: Vec<u8> = [0i32, -1, 65535].iter().flat_map(|x| x.to_le_bytes()).collect();
    let wide: Vec<u8> = [1.5f32, -3e38].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let half: Vec<u8> = [1.5f32, 65504.0].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let tensors: [(&str, Dtype, &[usize], &[u8]); 8] = [
        ("w", Dtype::F32, &[2, 3], &w),
        ("tokens", Dtype::I32, &[3], &tokens),
        ("a.scalar", Dtype::F64, &[], &scalar),
        ("none", Dtype::I64, &[0, 7], &[]),
        ("wide", Dtype::BF16, &[2], &wide),
        ("half", Dtype::F16, &[2], &half),
        ("long", Dtype::I64, &[1], &i64::MIN.to_le_bytes()),
        ("flag", Dtype::BOOL, &[1], &[1]),
    ];
    let views = tensors.map(|(name, dtype, shape, data)| (name, TensorView::new(dtype, shape.to_vec(), data).unwrap()));
    let strings = [("step", "12"), ("note", "a \"quoted\" é")].map(|(key, value)| (key.into(), value.into()));
    ::safetensors::serialize(views, Some(strings.into_iter().collect())).unwrap()
}

#[test]
fn what_the_published_writer_wrote_is_read_and_what_is_not_there_is_said() {
    let bytes = sample();
    let file = SafeTensors::parse(&bytes).unwrap();
    let mut names = file.names();
    names.sort();
    assert_eq!(names, ["a.scalar", "flag", "half", "long", "none", "tokens", "w", "wide"]);
    assert_eq!(file.metadata::<u64>("step").unwrap(), 12);
    assert_eq!(file.metadata::<String>("note").unwrap(), "a \"quoted\" é");
    assert_eq!(file.info("w").unwrap().shape, [2, 3]);
    assert_eq!(file.get_f64("w").unwrap(), [1.0, -2.0, 0.5, f32::MIN_POSITIVE, 3e38, -0.0].map(f64::from));
    assert_eq!(file.get_f64("a.scalar").unwrap(), [0.1]);
    assert_eq!(file.get_i64("tokens").unwrap(), [0, -1, 65535]);
    assert_eq!(file.get_i64("none").unwrap(), [0i64; 0]);
    assert_eq!(file.get_f64("wide").unwrap(), [1.5, bf16::from_f32(-3e38).to_f64()]);
    assert_eq!(file.get_f64("half").unwrap(), [1.5, 65504.0]);
    assert_eq!(file.get_i64("long").unwrap(), [i64::MIN]);
    assert!(file.get_i64("flag").is_err() && file.get_f64("flag").is_err());
    assert_eq!(file.expect_shape("w", &[2, 3]), Ok(()));

    let text = |e: Error| e.to_string();
    assert_eq!(text(file.get_f64("v").unwrap_err()), "there is no tensor \"v\" in the file");
    assert_eq!(text(file.get_f64("tokens").unwrap_err()), "tensor \"tokens\" is I32, expected floats");
    assert_eq!(text(file.get_i64("w").unwrap_err()), "tensor \"w\" is F32, expected I32 or I64");
    assert_eq!(text(file.expect_shape("w", &[6]).unwrap_err()), "tensor \"w\" has shape [2, 3], expected [6]");
    assert_eq!(
        text(file.metadata::<u64>("note").unwrap_err()),
        "metadata \"note\": \"a \\\"quoted\\\" é\" is not a valid u64"
    );
    assert!(file.metadata::<u64>("x").is_err());
    let missing = SafeTensors::open(Path::new("no/such/file")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read no/such/file"), "{missing}");
}

/// The weights' SHA-256 identifies a run, so every written byte is fixed.
#[test]
fn bytes_depend_on_the_content_alone_and_are_aligned() {
    let gain: Tensor = ("gain".into(), vec![2], &[1.0, 0.5]);
    let w: Tensor = ("a.w".into(), vec![1, 3], &[-2.0, f32::MIN_POSITIVE, -0.0]);
    let written = |tensors: &[Tensor]| {
        let mut out = Vec::new();
        write(&mut out, tensors).unwrap();
        out
    };
    let bytes = written(&[gain.clone(), w.clone()]);
    let header = r#"{"a.w":{"dtype":"F32","shape":[1,3],"data_offsets":[0,12]},"gain":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}}"#;
    let header = format!("{header:0$}", header.len().next_multiple_of(8));
    let data: Vec<u8> = w.2.iter().chain(gain.2).flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(bytes, file(&header, &data));
    assert_eq!(bytes, written(&[w, gain]));
    let theirs = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(::safetensors::serialize(theirs.tensors(), None).unwrap(), bytes, "the published writer agrees");
    assert!(write(&mut io::sink(), &[("w".into(), vec![2, 2], &[1.0, 2.0, 3.0])]).is_err());
}

#[test]
fn malformed_files_are_refused() {
    let tensor = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| format!(r#"{{"t":{}}}"#, tensor(dtype, shape, offsets));
    let two = |a: &str, b: &str| format!(r#"{{"a":{},"b":{}}}"#, tensor("U8", "[2]", a), tensor("U8", "[2]", b));
    let cases = [
        (file(&one("U8", "[2]", "[0,2]"), b"x"), "not fully covered"),
        (file(&one("U8", "[2]", "[0,2]"), b"xyz"), "not fully covered"),
        (file(&one("F32", "[2]", "[0,4]"), b"abcd"), "invalid shape, data type, or offset"),
        (file(&one("U8", "[2]", "[2,0]"), b"ab"), "invalid offset for tensor `t`"),
        (file(&one("U8", "[2]", "[0,2,2]"), b"ab"), "invalid JSON"),
        (file(&one("F7", "[2]", "[0,2]"), b"ab"), "unknown variant `F7`, expected one of"),
        (file(&two("[0,2]", "[1,3]"), b"abc"), "invalid offset for tensor `b`"),
        (file(&two("[0,2]", "[0,2]"), b"ab"), "invalid offset for tensor"),
        (file(&two("[0,2]", "[3,5]"), b"abcde"), "invalid offset for tensor `b`"),
        (file(&one("U8", "[2]", "[1,3]"), b"abc"), "invalid offset for tensor `t`"),
        (file(r#"{"t":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}"#, b"a"), "duplicate field `shape`"),
        (file(r#"{"__metadata__":{"a":1}}"#, b""), "invalid type: integer `1`, expected a string"),
        (file(r#"{"__metadata__":{},"__metadata__":{}}"#, b""), "duplicate field `__metadata__`"),
        (file("[]", b""), "invalid"),
        (file(" {}", b""), "must begin with '{'"),
        (Vec::new(), "the file is empty"),
        (b"1234567".to_vec(), "header too small"),
        (u64::MAX.to_le_bytes().to_vec(), "header too large"),
        ([&100u64.to_le_bytes()[..], b"{}"].concat(), "invalid header length"),
    ];
    for (bytes, expected) in cases {
        let found = error(&bytes);
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        assert!(!found.contains('\n'));
    }
    let twice = format!(r#"{{"t":{0},"t":{0}}}"#, tensor("U8", "[0]", "[0,0]"));
    assert!(error(&file(&twice, b"")).contains("\"t\" appears twice"));
}
