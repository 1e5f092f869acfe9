//! Weights that were learnt elsewhere: GPT-2 as Hugging Face's libraries store it, `config.json` and `model.safetensors` in
//! one folder.
//!
//! Tensors are called `wte.weight`, `h.0.attn.c_attn.weight` and so on, all of them with `transformer.` in front or none.
//! Those of products are stored `[in, out]`, the other way round than here. The head is the embedding. Causal masks that
//! older files hold beside the weights (`h.0.attn.bias`, `h.0.attn.masked_bias`) are passed over.

use crate::config::{Chunking, Config, DataConfig, ModelConfig, ModelKind, Tokenizer, TrainConfig};
use crate::json::{self, Value};
use crate::model::Params;
use crate::run::Run;
use crate::safetensors::{self, SafeTensors};
use autograd::Store;
use engine::{DType, Device, Error, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The two files of the folder.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// What stands in front of all names, or nothing.
const PREFIX: &str = "transformer.";

/// A vocabulary may be padded to a multiple of this.
const PADDING: usize = 128;

/// Names of GPT-2's activation, the tanh form of GELU.
const ACTIVATIONS: [&str; 2] = ["gelu_new", "gelu_pytorch_tanh"];

/// Parts of a layer: our name, and theirs.
const LAYER: [(&str, &str); 6] = [
    ("attention_norm", "ln_1"),
    ("attention.wqkv", "attn.c_attn"),
    ("attention.wo", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("feed_forward.w1", "mlp.c_fc"),
    ("feed_forward.w2", "mlp.c_proj"),
];

/// Makes the run folder `out` of the GPT-2 in `folder`, whose tokens are `tokenizer`'s.
///
/// # Errors
/// Files that are missing or damaged; a configuration of another model; a tensor that is missing, left over, of another
/// shape, or not F32, F16 or BF16; a vocabulary that is not the tokenizer's; and those of [`Run::create_with_weights`].
/// Nothing is left of `out` then.
pub fn gpt2(folder: &Path, tokenizer: Tokenizer, out: &Path) -> Result<Run> {
    Run::check_new(out)?;
    let file = folder.join(CONFIG);
    let text = fs::read(&file).map_err(|e| Error::io("read", &file, &e))?;
    let config =
        json::parse(&text).and_then(|value| configuration(&value, tokenizer)).map_err(|e| e.at(file.display()))?;
    let file = folder.join(WEIGHTS);
    let tensors = SafeTensors::open(&file)?;
    check_sizes(&tensors, &config.model).map_err(|e| e.at(file.display()))?;
    let mut store = Store::new(Device::Cpu);
    let params = Params::new(&config.model, DType::F32, &mut store);
    read(&tensors, &params, &mut store).map_err(|e| e.at(file.display()))?;
    Run::create_with_weights(out, &config, &store, &params)
}

/// What a `config.json` of Hugging Face's says.
fn configuration(theirs: &Value, tokenizer: Tokenizer) -> Result<Config> {
    let is = |key: &str, expected: Value| match theirs.get(key) {
        Some(found) if *found != expected && *found != Value::Null => {
            Err(Error::new(format!("{key} = {found}: only {expected} is supported")))
        }
        _ => Ok(()),
    };
    is("model_type", "gpt2".into())?;
    is("scale_attn_weights", true.into())?;
    is("scale_attn_by_inverse_layer_idx", false.into())?;
    is("add_cross_attention", false.into())?;
    is("tie_word_embeddings", true.into())?;
    let activation = theirs.read("activation_function", Value::as_str)?;
    if !ACTIVATIONS.contains(&activation) {
        return Err(Error::new(format!(
            "activation_function = {activation:?}: only {} is supported, GPT-2's GELU in its tanh form",
            ACTIVATIONS.join(" or ")
        )));
    }
    let size = |key: &str| theirs.read(key, Value::as_usize);
    let given = |key: &str| theirs.get(key).filter(|value| **value != Value::Null).is_some();
    // Older files name the positions by the context alone.
    let positions = size(if given("n_positions") { "n_positions" } else { "n_ctx" })?;
    let (vocab, ids) = (size("vocab_size")?, tokenizer.vocab());
    if vocab < ids || vocab > ids.next_multiple_of(PADDING) {
        return Err(Error::new(format!(
            "vocab_size = {vocab} does not fit tokenizer {tokenizer}, which has {ids} ids: name the model's own with --tokenizer"
        )));
    }
    let model = ModelConfig {
        kind: ModelKind::Gpt2,
        layers: size("n_layer")?,
        dim: size("n_embd")?,
        heads: size("n_head")?,
        ffn: if given("n_inner") { size("n_inner")? } else { 0 },
        vocab,
        seq: positions,
        max_seq: positions,
        window: positions,
        norm_eps: theirs.read("layer_norm_epsilon", Value::as_f64)?,
        ..ModelConfig::default()
    };
    let train = TrainConfig { batch: 1, ..TrainConfig::default() };
    let data = DataConfig { tokenizer, chunking: Chunking::Windows, ..DataConfig::default() };
    Config { model, train, data, ..Config::default() }.resolved()
}

/// What stands in front of all names of a file.
fn prefix<B: AsRef<[u8]>>(file: &SafeTensors<B>) -> &'static str {
    if file.info(&format!("{PREFIX}wte.weight")).is_ok() { PREFIX } else { "" }
}

/// Every size that the configuration names, before memory is taken for it.
fn check_sizes<B: AsRef<[u8]>>(file: &SafeTensors<B>, model: &ModelConfig) -> Result<()> {
    let prefix = prefix(file);
    let expect = |name: String, shape: &[usize]| file.expect_shape(&format!("{prefix}{name}"), shape);
    expect("wte.weight".into(), &[model.vocab, model.dim])?;
    expect("wpe.weight".into(), &[model.max_seq, model.dim])?;
    expect("h.0.mlp.c_fc.weight".into(), &[model.dim, model.ffn_hidden()])?;
    expect(format!("h.{}.ln_1.weight", model.layers - 1), &[model.dim])
}

/// Fills the parameters.
fn read<B: AsRef<[u8]>>(file: &SafeTensors<B>, params: &Params, store: &mut Store) -> Result<()> {
    let prefix = prefix(file);
    let mut known = BTreeSet::new();
    for p in params.iter() {
        for part in p.parts() {
            let name = format!("{prefix}{}", their_name(part.name));
            let dtype = file.info(&name)?.dtype;
            if !matches!(dtype, safetensors::DType::F32 | safetensors::DType::F16 | safetensors::DType::Bf16) {
                return Err(Error::new(format!("tensor {name:?} is {dtype}, must be F32, F16 or BF16")));
            }
            // The tables of vectors stand as they are.
            let transposed = p.is_matrix() && part.name.starts_with("layers.");
            let values = match part.shape[..] {
                [outputs, inputs] if transposed => {
                    file.expect_shape(&name, &[inputs, outputs])?;
                    transpose(&file.get_f64(&name)?, inputs, outputs)
                }
                _ => {
                    file.expect_shape(&name, &part.shape)?;
                    file.get_f64(&name)?
                }
            };
            if let Some(i) = values.iter().position(|x| !x.is_finite()) {
                return Err(Error::new(format!("tensor {name:?} has {} at element {i}", values[i])));
            }
            store.get_mut(p.id).set_f64(&values);
            known.insert(name);
        }
    }
    let masks = |name: &str| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
    match file.names().find(|name| !known.contains(*name) && !masks(name) && *name != "lm_head.weight") {
        Some(name) => {
            Err(Error::new(format!("tensor {name:?} belongs to no part of the GPT-2 that {CONFIG} describes")))
        }
        None => check_head(file, &format!("{prefix}wte.weight")),
    }
}

/// A head that is written out must be the embedding.
fn check_head<B: AsRef<[u8]>>(file: &SafeTensors<B>, embedding: &str) -> Result<()> {
    let head = "lm_head.weight";
    if file.info(head).is_err() || file.get_f64(head)? == file.get_f64(embedding)? {
        return Ok(());
    }
    Err(Error::new(format!(
        "tensor {head:?} differs from {embedding:?}: only a head tied to the embedding is supported"
    )))
}

/// `[inputs, outputs]` → `[outputs, inputs]`.
fn transpose(values: &[f64], inputs: usize, outputs: usize) -> Vec<f64> {
    (0..outputs * inputs).map(|i| values[i % inputs * outputs + i / inputs]).collect()
}

/// Hugging Face's name of one of our tensors.
fn their_name(ours: &str) -> String {
    let (part, kind) = ours.rsplit_once('.').unwrap_or((ours, ""));
    let Some((layer, part)) = part.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        let part = match part {
            "tok_embeddings" => "wte",
            "pos_embeddings" => "wpe",
            _ => "ln_f",
        };
        return format!("{part}.{kind}");
    };
    let theirs = LAYER.iter().find(|(name, _)| *name == part).map_or(part, |(_, theirs)| theirs);
    format!("h.{layer}.{theirs}.{kind}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Work;
    use crate::data::{Batch, SampleInfo};
    use crate::generate::Walk;
    use crate::learn::{Inputs, Score};
    use crate::mutate;
    use crate::run::Loaded;
    use crate::safetensors::{Data, Writer};
    use crate::train::Trainer;
    use std::path::PathBuf;

    /// A tiny random GPT-2, and what an independent implementation says of it; `make.py` there made both.
    fn fixture() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gpt2")
    }

    fn expected() -> (Vec<u16>, Vec<f64>) {
        let file = SafeTensors::open(&fixture().join("expected.safetensors")).unwrap();
        let tokens = file.get_i64("tokens").unwrap().into_iter().map(|t| t as u16).collect();
        (tokens, file.get_f64("logits").unwrap())
    }

    fn imported(folder: &Path) -> Result<Loaded> {
        let out = tempfile::tempdir().unwrap();
        let run = gpt2(folder, Tokenizer::Bytes, &out.path().join("run"))?;
        run.load(&Device::Cpu, Work::Evaluation)
    }

    /// −log p of `target` under these logits.
    fn cost(logits: &[f64], target: usize) -> f64 {
        logits.iter().map(|x| x.exp()).sum::<f64>().ln() - logits[target]
    }

    #[test]
    fn logits_are_those_of_an_independent_implementation() {
        let mut model = imported(&fixture()).unwrap();
        let (tokens, logits) = expected();
        // Token by token from the ring of keys and values, as generation does.
        let mut walk = Walk::new(&model.config.model, &model.params, None, &mut model.store).unwrap();
        for _ in 0..2 {
            walk.begin(&mut model.store);
            let ours: Vec<f64> = tokens.iter().flat_map(|&t| walk.step(&mut model.store, t)).collect();
            let worst = ours.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(worst < 2e-5 && ours.len() == logits.len(), "{worst:e}");
        }
        // All positions at once, as evaluation does: two samples, one with a gap.
        let (config, n) = (&model.config, tokens.len());
        let inputs = Inputs::new(2, n, DType::F32, &mut model.store);
        let score = Score::new(&config.model, &model.params, &inputs, None, 0, &mut model.store).unwrap();
        let mut batch = Batch::new(2, n);
        for i in 0..2 * n {
            batch.tokens[i] = i32::from(tokens[i % n]);
            batch.targets[i] = if i == 5 { -1 } else { (i * 31 % 258) as i32 };
        }
        batch.samples.fill(SampleInfo::default());
        inputs.load(&mut model.store, &config.model, &batch).unwrap();
        score.begin(&mut model.store);
        score.exact(&mut model.store);
        for (i, (&target, nll)) in batch.targets.iter().zip(score.token_nll(&model.store)).enumerate() {
            let expected = usize::try_from(target).map_or(0.0, |t| cost(&logits[i % n * 258..][..258], t));
            assert!((nll - expected).abs() < 2e-5, "position {i}: {nll}, {expected}");
        }
    }

    /// Tensors of the fixture by name, to be written again in another way.
    fn tensors() -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let file = SafeTensors::open(&fixture().join(WEIGHTS)).unwrap();
        let tensor =
            |name: &str| (name.to_string(), file.info(name).unwrap().shape.clone(), file.get_f32(name).unwrap());
        file.names().map(tensor).collect()
    }

    fn folder_of(config: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(CONFIG), config).unwrap();
        let mut writer = Writer::new();
        for (name, shape, values) in tensors {
            // A mask has the type of a mask.
            if name.ends_with(".attn.bias") {
                writer.add(name, shape, Data::U8(&[1])).unwrap();
            } else {
                writer.add(name, shape, Data::F32(values)).unwrap();
            }
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        fs::write(folder.path().join(WEIGHTS), bytes).unwrap();
        folder
    }

    fn theirs() -> String {
        fs::read_to_string(fixture().join(CONFIG)).unwrap()
    }

    fn weights(model: &Loaded) -> Vec<Vec<f64>> {
        model.params.iter().map(|p| model.store.get(p.id).to_f64()).collect()
    }

    #[test]
    fn prefix_masks_and_a_tied_head_are_understood() {
        let plain = weights(&imported(&fixture()).unwrap());
        let mut others = tensors();
        let head = others.iter().find(|(name, ..)| name == "wte.weight").unwrap().clone();
        others.iter_mut().for_each(|(name, ..)| name.insert_str(0, PREFIX));
        others.push(("lm_head.weight".into(), head.1, head.2));
        others.push(("transformer.h.0.attn.bias".into(), vec![1, 1, 1, 1], vec![]));
        let folder = folder_of(&theirs(), &others);
        assert_eq!(weights(&imported(folder.path()).unwrap()), plain);
        others.iter_mut().find(|(name, ..)| name == "lm_head.weight").unwrap().2[3] += 1.0;
        let error = imported(folder_of(&theirs(), &others).path()).unwrap_err().to_string();
        assert!(error.contains("\"lm_head.weight\" differs from \"transformer.wte.weight\""), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_refused_in_one_line() {
        let error = |config: &str, tensors: &[(String, Vec<usize>, Vec<f32>)]| {
            let error = imported(folder_of(config, tensors).path()).unwrap_err().to_string();
            assert!(!error.contains('\n'));
            error
        };
        let configs = [
            ("\"gelu_new\"", "\"relu\"", "config.json: activation_function = \"relu\": only gelu_new"),
            ("258", "400", "vocab_size = 400 does not fit tokenizer bytes, which has 258 ids"),
            ("258", "50", "vocab_size = 50 does not fit tokenizer bytes"),
            ("\"gpt2\"", "\"llama\"", "model_type = \"llama\": only \"gpt2\""),
            ("\"n_head\": 2", "\"n_head\": 3", "model.dim = 8 is not divisible by model.heads = 3"),
            ("n_layer", "layers", "n_layer"),
            ("\"n_embd\": 8", "\"n_embd\": 16", "tensor \"wte.weight\" has shape [258, 8], expected [258, 16]"),
            ("\"n_layer\": 2", "\"n_layer\": 1", "tensor \"h.1.attn.c_attn.bias\" belongs to no part"),
            ("\"n_layer\": 2", "\"n_layer\": 2000000", "model.layers = 2000000"),
            ("\"n_layer\": 2", "\"n_layer\": 1000", "there is no tensor \"h.999.ln_1.weight\""),
            ("\"n_layer\": 2", "\"n_layer\": 3", "there is no tensor \"h.2.ln_1.weight\""),
            (
                "\"n_inner\": null",
                "\"n_inner\": 16",
                "tensor \"h.0.mlp.c_fc.weight\" has shape [8, 32], expected [8, 16]",
            ),
        ];
        for (find, replace, part) in configs {
            let error = error(&theirs().replacen(find, replace, 1), &tensors());
            assert!(error.contains(part), "{error:?} does not say {part:?}");
        }
        let mut damaged = tensors();
        damaged[0].2[1] = f32::NAN;
        assert!(error(&theirs(), &damaged).contains("has NaN at element 1"));
        let folder = folder_of(&theirs(), &[]);
        let ids = [0i64; 258 * 8];
        let (mut writer, all) = (Writer::new(), tensors());
        writer.add("wte.weight", &[258, 8], Data::I64(&ids)).unwrap();
        for (name, shape, values) in all.iter().filter(|(name, ..)| name != "wte.weight" && !name.contains("attn.bias"))
        {
            writer.add(name, shape, Data::F32(values)).unwrap();
        }
        let mut bytes = Vec::new();
        writer.write(&mut bytes).unwrap();
        fs::write(folder.path().join(WEIGHTS), bytes).unwrap();
        let error = imported(folder.path()).unwrap_err().to_string();
        assert!(error.contains("tensor \"wte.weight\" is I64, must be F32, F16 or BF16"), "{error}");
    }

    #[test]
    fn damaged_files_never_panic() {
        let good = theirs().into_bytes();
        let mut accepted = 0;
        for case in 0..mutate::cases(5_000) {
            let Ok(value) = json::parse(mutate::damage(&good, case)) else { continue };
            accepted += usize::from(configuration(&value, Tokenizer::Bytes).is_ok());
        }
        assert!(accepted > 10, "only {accepted} files got past the reader: the damage is too coarse to test it");
    }

    /// The same layers from random weights: what is learned, learns.
    #[test]
    fn the_layers_can_be_trained() {
        let mut config = Config::preset("tiny").unwrap();
        for (key, value) in [
            ("model.kind", "gpt2"),
            ("model.layers", "1"),
            ("model.dim", "16"),
            ("model.seq", "24"),
            ("model.window", "24"),
            ("slow.rate", "0.02"),
            ("slow.warmup", "1"),
        ] {
            config.set(key, value).unwrap();
        }
        config.train.batch = 2;
        let mut trainer = Trainer::new(config, &Device::Cpu).unwrap();
        assert_eq!(trainer.params.count(), crate::config::parameter_count(&trainer.config.model));
        let mut batch = Batch::new(2, 24);
        for i in 0..48 {
            batch.tokens[i] = (i % 5) as i32;
            batch.targets[i] = ((i + 1) % 5) as i32;
        }
        batch.samples.fill(SampleInfo { scored: 24, bytes: 24, ..SampleInfo::default() });
        let before = weights_of(&trainer);
        let first = trainer.train(&batch).unwrap().loss();
        let last = (0..30).map(|_| trainer.train(&batch).unwrap().loss()).last().unwrap();
        assert!(last < 0.5 * first, "{first} to {last}");
        let unmoved = weights_of(&trainer).into_iter().zip(before).filter(|(after, before)| after.1 == before.1);
        assert_eq!(unmoved.map(|(after, _)| after.0).collect::<Vec<_>>(), Vec::<String>::new());
    }

    fn weights_of(trainer: &Trainer) -> Vec<(String, Vec<f64>)> {
        trainer.params.iter().map(|p| (p.name.clone(), trainer.store.get(p.id).to_f64())).collect()
    }
}
