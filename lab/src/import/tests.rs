use super::*;
use ltm::config::Work;
use ltm::data::{Batch, SampleInfo};
use ltm::generate::Walk;
use ltm::learn::{Inputs, Score};
use ltm::mutate;
use ltm::run::Loaded;
use ltm::safetensors::{Tensor, write};
use ltm::train::Trainer;
use std::path::PathBuf;

/// A tiny random GPT-2, and the results of an independent implementation; `make.py` there made both.
fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gpt2")
}

const THEIRS: &str = include_str!("../../../tests/fixtures/gpt2/config.json");

fn imported(folder: &Path) -> Result<Loaded> {
    let out = tempfile::tempdir().unwrap();
    let run = gpt2(folder, Tokenizer::Bytes, &out.path().join("run"))?;
    run.load(&Device::CPU, Work::Evaluation)
}

#[test]
fn logits_are_those_of_an_independent_implementation() {
    let mut model = imported(&fixture()).unwrap();
    let expected = SafeTensors::open(&fixture().join("expected.safetensors")).unwrap();
    let tokens: Vec<u16> = expected.get_i64("tokens").unwrap().into_iter().map(|t| t as u16).collect();
    let logits = expected.get_f64("logits").unwrap();
    // Token by token from the ring of keys and values, as generation does.
    let mut walk = Walk::new(&model.config.model, &model.params, None, &mut model.store).unwrap();
    for _ in 0..2 {
        walk.begin(&mut model.store);
        let ours: Vec<f64> = tokens.iter().flat_map(|&t| walk.step(&mut model.store, t).unwrap()).collect();
        let worst = ours.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst < 2e-5 && ours.len() == logits.len(), "{worst:e}");
    }
    // All positions at once, as evaluation does: two samples, one with a gap.
    let (config, n) = (&model.config, tokens.len());
    let inputs = Inputs::new(&model.config.model, 2, n, DType::F32, &mut model.store);
    let score = Score::new(&config.model, &model.params, &inputs, None, 0, &mut model.store).unwrap();
    let mut batch = Batch::new(2, n);
    for i in 0..2 * n {
        batch.tokens[i] = i32::from(tokens[i % n]);
        batch.targets[i] = if i == 5 { -1 } else { (i * 31 % 258) as i32 };
    }
    batch.samples.fill(SampleInfo::default());
    inputs.load(&mut model.store, &config.model, &batch).unwrap();
    score.begin(&mut model.store);
    let token_nll = score.draw(&mut model.store, 0).unwrap().token_nll;
    // −log p of a target under the logits.
    let cost = |logits: &[f64], t: usize| logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[t];
    for (i, (&target, nll)) in batch.targets.iter().zip(token_nll).enumerate() {
        let expected = usize::try_from(target).map_or(0.0, |t| cost(&logits[i % n * 258..][..258], t));
        assert!((nll - expected).abs() < 2e-5, "position {i}: {nll}, {expected}");
    }
}

/// Name, shape and numbers.
type Owned = (String, Vec<usize>, Vec<f32>);

/// Tensors of the fixture, to write in other ways.
fn tensors() -> Vec<Owned> {
    let file = SafeTensors::open(&fixture().join(WEIGHTS)).unwrap();
    let values = |name: &str| file.get_f64(name).unwrap().into_iter().map(|x| x as f32).collect();
    let tensor = |name: String| (name.clone(), file.info(&name).unwrap().shape.clone(), values(&name));
    file.names().into_iter().map(tensor).collect()
}

fn folder_of(config: &str, tensors: &[Owned]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONFIG), config).unwrap();
    fs::write(folder.path().join(WEIGHTS), file_of(tensors)).unwrap();
    folder
}

fn file_of(tensors: &[Owned]) -> Vec<u8> {
    let tensors: Vec<Tensor> = tensors.iter().map(|(name, shape, x)| (name.clone(), shape.clone(), &x[..])).collect();
    let mut bytes = Vec::new();
    write(&mut bytes, &tensors).unwrap();
    bytes
}

/// The fixture as a folder of two files of tensors and an index, under the names that large models have.
#[test]
fn weights_may_lie_in_several_files() {
    let plain = imported(&fixture()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let all = tensors();
    let (front, back) = all.split_at(7);
    let places = [front, back].into_iter().zip(parts);
    let map: BTreeMap<&str, &str> =
        places.flat_map(|(some, part)| some.iter().map(move |(name, ..)| (&name[..], part))).collect();
    put(INDEX, json::line(&BTreeMap::from([("weight_map", map)])).as_bytes());
    put(CONFIG, format!("\u{FEFF}{THEIRS}").as_bytes());
    put(parts[0], &file_of(front));
    put(parts[1], &file_of(back));
    let parted = imported(folder.path()).unwrap();
    assert_eq!(weights(&parted.params, &parted.store), weights(&plain.params, &plain.store));

    let place = folder.path().display().to_string();
    let refused = |part: &str| {
        let error = imported(folder.path()).unwrap_err().to_string();
        assert!(!error.contains('\n') && error.contains(part), "{error:?} does not say {part:?}");
    };
    put(parts[1], &file_of(&all[6..]));
    refused(&format!("{} has tensor {:?}, {place}/{INDEX} says that it has not", parts[1], all[6].0));
    put(parts[1], &file_of(&all[8..]));
    refused(&format!("{} has no tensor {:?}, {place}/{INDEX} says that it has", parts[1], all[7].0));
    fs::remove_file(folder.path().join(parts[1])).unwrap();
    refused(&format!("{INDEX}: cannot read {place}/{}", parts[1]));
    fs::remove_file(folder.path().join(INDEX)).unwrap();
    refused(&format!("{place} has no {WEIGHTS}: an import needs {CONFIG} and {WEIGHTS}"));
    put(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
    refused(&format!("{place}/{WEIGHTS} is a Git LFS pointer"));
    put(WEIGHTS, b"");
    refused(&format!("{place}/{WEIGHTS}: the file is empty"));
}

/// Folders with other things than `config.json` and `model.safetensors`, and what the error says.
#[test]
fn what_lies_in_the_folder_instead_is_named() {
    let convert = "which this program cannot read, but no model.safetensors: `python3 -c";
    let run = json::line(&Config::preset("tiny").unwrap());
    let llama = r#"{"model_type": "llama", "hidden_act": "silu"}"#;
    /// Files by name and content, and parts of the error.
    type Folder<'a> = (&'a [(&'a str, &'a str)], &'a [&'a str]);
    let cases: [Folder<'_>; 10] = [
        (&[(CONFIG, llama)], &["config.json: model_type = \"llama\": only \"gpt2\""]),
        (&[(CONFIG, &run)], &["config.json: this folder is already a run of this program"]),
        (&[], &["has no config.json: an import needs config.json and model.safetensors", "was the download complete?"]),
        (&[(CONFIG, THEIRS)], &["has no model.safetensors: an import needs", "was the download complete?"]),
        (&[("snapshots/607a/config.json", THEIRS)], &["is a cache of Hugging Face", "snapshots/607a"]),
        (
            &[(CONFIG, THEIRS), ("pytorch_model.bin", "PK")],
            &["in pytorch_model.bin, ", convert, " NEW` makes a folder NEW"],
        ),
        (
            &[(CONFIG, THEIRS), ("tf_model.h5", "")],
            &["in tf_model.h5, ", convert, "argv[1], from_tf=True)", "transformers<5, torch and tensorflow"],
        ),
        (
            &[(CONFIG, THEIRS), ("flax_model.msgpack", "")],
            &["in flax_model.msgpack, ", convert, "argv[1], from_flax=True)"],
        ),
        (&[("gpt2.Q8_0.gguf", "")], &["in gpt2.Q8_0.gguf, ", "gguf_file=sys.argv[3])", " NEW gpt2.Q8_0.gguf` makes"]),
        (&[("tf_model.h5", "")], &["in tf_model.h5, ", "no config.json: put its config.json beside it, then `python3"]),
    ];
    for (files, parts) in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let error = imported(folder.path()).unwrap_err().to_string();
        assert!(!error.contains('\n') && parts.iter().all(|part| error.contains(part)), "{error:?}: {parts:?}");
    }
}

fn weights(params: &Params, store: &Store) -> Vec<Vec<f64>> {
    params.iter().map(|p| store.get(p.id).to_f64()).collect()
}

#[test]
fn prefix_masks_and_a_tied_head_are_understood() {
    let weights = |folder: &Path| imported(folder).map(|model| weights(&model.params, &model.store));
    let plain = weights(&fixture()).unwrap();
    let mut others = tensors();
    let head = others.iter().find(|(name, ..)| name == "wte.weight").unwrap().clone();
    others.iter_mut().for_each(|(name, ..)| name.insert_str(0, PREFIX));
    others.push(("lm_head.weight".into(), head.1, head.2));
    others.push(("transformer.h.0.attn.bias".into(), vec![1, 1, 1, 1], vec![1.0]));
    let folder = folder_of(THEIRS, &others);
    assert_eq!(weights(folder.path()).unwrap(), plain);
    others.iter_mut().find(|(name, ..)| name == "lm_head.weight").unwrap().2[3] += 1.0;
    let error = weights(folder_of(THEIRS, &others).path()).unwrap_err().to_string();
    assert!(error.contains("\"lm_head.weight\" differs from \"transformer.wte.weight\""), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_in_one_line() {
    let error = |config: &str, tensors: &[Owned]| {
        let error = imported(folder_of(config, tensors).path()).unwrap_err().to_string();
        assert!(!error.contains('\n'));
        error
    };
    let configs = [
        ("\"gelu_new\"", "\"relu\"", "config.json: activation_function = \"relu\": only gelu_new"),
        ("258", "400", "vocab_size = 400 does not fit tokenizer bytes, which has 258 ids"),
        ("258", "50", "vocab_size = 50 does not fit tokenizer bytes"),
        ("\"n_head\": 2", "\"n_head\": 3", "n_positions model.seq): model.dim = 8 is not divisible by model.heads = 3"),
        ("n_layer", "layers", "n_layer"),
        ("\"n_embd\": 8", "\"n_embd\": 16", "tensor \"wte.weight\" has shape [258, 8], expected [258, 16]"),
        ("\"n_layer\": 2", "\"n_layer\": 1", "tensor \"h.1.attn.c_attn.bias\" is not part"),
        ("\"n_layer\": 2", "\"n_layer\": 2000000", "model.layers = 2000000"),
        ("\"n_layer\": 2", "\"n_layer\": 3", "it has no tensor \"h.2.attn.c_attn.weight\""),
        ("\"n_inner\": null", "\"n_inner\": 16", "tensor \"h.0.mlp.c_fc.weight\" has shape [8, 32], expected [8, 16]"),
    ];
    for (find, replace, part) in configs {
        let error = error(&THEIRS.replacen(find, replace, 1), &tensors());
        assert!(error.contains(part), "{error:?} does not say {part:?}");
    }
    let mut damaged = tensors();
    damaged[0].2[1] = f32::NAN;
    assert!(error(THEIRS, &damaged).contains("has NaN at element 1"));
    let folder = folder_of(THEIRS, &tensors());
    let mut bytes = fs::read(folder.path().join(WEIGHTS)).unwrap();
    let entry = br#""wte.weight":{"dtype":"F32""#;
    let at = bytes.windows(entry.len()).position(|window| window == entry).unwrap() + entry.len();
    bytes[at - 4] = b'I';
    fs::write(folder.path().join(WEIGHTS), bytes).unwrap();
    let error = imported(folder.path()).unwrap_err().to_string();
    assert!(error.contains("tensor \"wte.weight\" is I32, expected floats"), "{error}");
}

#[test]
fn damaged_files_never_panic() {
    let good = THEIRS.as_bytes();
    let mut accepted = 0;
    for case in 0..mutate::cases(5_000) {
        let Ok(theirs) = serde_json::from_slice(&mutate::damage(good, case)) else { continue };
        accepted += usize::from(configuration(&theirs, Tokenizer::Bytes).is_ok());
    }
    assert!(accepted > 10, "only {accepted} files got past the reader: the damage is too coarse to test it");
}

/// The same layers from random weights: all of them train.
#[test]
fn the_layers_can_be_trained() {
    let mut config = Config::preset("tiny").unwrap();
    config.set_all("model.kind=gpt2 model.layers=1 model.dim=16 model.seq=24 model.window=24").unwrap();
    config.set_all("slow.rate=0.02 slow.warmup=1 train.batch=2").unwrap();
    let mut trainer = Trainer::new(config, &Device::CPU).unwrap();
    let mut batch = Batch::new(2, 24);
    batch.tokens.iter_mut().zip(0..).for_each(|(token, i)| *token = i % 5);
    batch.targets.iter_mut().zip(1..).for_each(|(token, i)| *token = i % 5);
    batch.samples.fill(SampleInfo { scored: 24, bytes: 24, ..SampleInfo::default() });
    let before = weights(&trainer.params, &trainer.store);
    let first = trainer.train(&batch).unwrap().nll;
    let last = (0..30).map(|_| trainer.train(&batch).unwrap().nll).last().unwrap();
    assert!(last < 0.5 * first, "{first} to {last}");
    let after = weights(&trainer.params, &trainer.store);
    assert!(after.iter().zip(&before).all(|(after, before)| after != before), "parameters that do not move");
}
