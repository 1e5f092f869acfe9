//! Imports weights: GPT-2 in Hugging Face's format, `config.json` and `model.safetensors` in one folder, or several
//! files of tensors with an index.
//!
//! Tensors are called `wte.weight`, `h.0.attn.c_attn.weight` and so on, all with or all without the prefix
//! `transformer.`. Matrices of products are stored `[in, out]`; here they are `[out, in]`. The head is tied to the
//! embedding. Older files also contain causal masks (`h.0.attn.bias`, `h.0.attn.masked_bias`); the import skips them.

use autograd::Store;
use engine::{DType, Device, Error, Result};
use ltm::config::{Chunking, Config, DataConfig, ModelConfig, ModelKind, Tokenizer, TrainConfig};
use ltm::json;
use ltm::model::Params;
use ltm::run::{NewFolder, Run};
use ltm::safetensors::SafeTensors;
use ltm::shell;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The two files of the folder.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";

/// The index, if there are several files of weights.
const INDEX: &str = "model.safetensors.index.json";

/// Ends of names of weights in other formats, how transformers is told to read them, and the packages that this needs.
/// Version 5 of transformers reads TensorFlow's and Flax's no more.
const OTHERS: [(&str, &str, &str); 5] = [
    ("pytorch_model.bin", "", "transformers and torch"),
    ("pytorch_model.bin.index.json", "", "transformers and torch"),
    ("tf_model.h5", ", from_tf=True", "transformers<5, torch and tensorflow"),
    ("flax_model.msgpack", ", from_flax=True", "transformers<5, torch and flax"),
    (".gguf", ", gguf_file=sys.argv[3]", "transformers, torch and gguf"),
];

/// Where a cache of Hugging Face keeps the folders of a model.
const SNAPSHOTS: &str = "snapshots";

/// Prefix of errors in settings that come from their configuration, with the names of both.
const OUR_KEYS: &str = "as settings of this program (n_layer is model.layers, n_embd model.dim, n_head model.heads, n_inner model.ffn, n_positions model.seq)";

/// The prefix of all names, or empty.
const PREFIX: &str = "transformer.";

/// A vocabulary may be padded to a multiple of this.
const PADDING: usize = 128;

/// Parts of our names, and the same parts of theirs; `norm` is last, because other names contain it.
const NAMES: [(&str, &str); 10] = [
    ("tok_embeddings", "wte"),
    ("pos_embeddings", "wpe"),
    ("layers.", "h."),
    ("attention_norm", "ln_1"),
    ("attention.wqkv", "attn.c_attn"),
    ("attention.wo", "attn.c_proj"),
    ("ffn_norm", "ln_2"),
    ("feed_forward.w1", "mlp.c_fc"),
    ("feed_forward.w2", "mlp.c_proj"),
    ("norm", "ln_f"),
];

/// Makes the run folder `out` from the GPT-2 in `folder`, which uses `tokenizer`.
///
/// # Errors
/// Files that are missing or damaged; a configuration of another model; a tensor that is missing, left over, of another
/// shape, or not of floats; no memory; a vocabulary that is not the tokenizer's; and those of
/// [`Run::create_with_weights`]. Then `out` is removed.
pub fn gpt2(folder: &Path, tokenizer: Tokenizer, out: &Path) -> Result<Run> {
    let new = NewFolder::at(out)?;
    let file = folder.join(CONFIG);
    if folder.is_dir() && !file.exists() {
        return Err(missing(folder, CONFIG));
    }
    check_kind(&json::read(&file)?).map_err(|e| e.at(file.display()))?;
    let config = configuration(&json::read(&file)?, tokenizer).map_err(|e| e.at(file.display()))?;
    let weights = Weights::open(folder)?;
    let mut store = Store::new(Device::CPU);
    let params = Params::new(&config.model, DType::F32, &mut store);
    // Without memory, written weights would read as zeros.
    store.ready()?;
    read(&weights, &params, &mut store).map_err(|e| e.at(weights.path.display()))?;
    Run::create_with_weights(&new, &config, &store, &params)
}

/// What a `config.json` describes: a model of some type, or a run.
#[derive(Deserialize)]
struct Kind {
    model_type: Option<String>,
    model: Option<IgnoredAny>,
    train: Option<IgnoredAny>,
}

/// Checks that it is GPT-2, before the fields that only GPT-2 has.
fn check_kind(kind: &Kind) -> Result<()> {
    match kind.model_type.as_deref() {
        Some(other) if other != "gpt2" => {
            Err(Error::new(format!("model_type = {other:?}: only \"gpt2\" is supported")))
        }
        None if kind.model.is_some() && kind.train.is_some() => {
            Err(Error::new("this folder is already a run of this program: use it without an import"))
        }
        _ => Ok(()),
    }
}

/// What `folder` has instead of the file `name`, and what to do.
fn missing(folder: &Path, name: &str) -> Error {
    let place = folder.display();
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<BTreeSet<_>>()
    };
    if let Some(hash) = names(&folder.join(SNAPSHOTS)).first() {
        let snapshot = folder.join(SNAPSHOTS).join(hash);
        return Error::new(format!(
            "{place} is a cache of Hugging Face: name the model in it, {}",
            shell::path(&snapshot)
        ));
    }
    let other =
        |file: String| OTHERS.iter().find(|(end, ..)| file.ends_with(end)).map(|(_, how, needs)| (file, how, needs));
    let Some((file, how, needs)) = names(folder).into_iter().find_map(other) else {
        return Error::new(format!(
            "{place} has no {name}: an import needs {CONFIG} and {WEIGHTS}, or {INDEX} and the files that it names; was the \
             download complete?"
        ));
    };
    // A GGUF file has the configuration in it.
    let (first, last) = if how.contains("argv") {
        (String::new(), format!(" {}", shell::word(&file)))
    } else if name == CONFIG {
        (format!("put its {CONFIG} beside it, then "), String::new())
    } else {
        Default::default()
    };
    Error::new(format!(
        "{place} has its weights in {file}, which this program cannot read, but no {name}: {first}`python3 -c \"import sys; \
         from transformers import GPT2LMHeadModel as M; M.from_pretrained(sys.argv[1]{how}).save_pretrained(sys.argv[2])\" \
         {} NEW{last}` makes a folder NEW with {WEIGHTS}, with the Python packages {needs}",
        shell::path(folder)
    ))
}

/// The relevant part of a Hugging Face `config.json`.
#[derive(Deserialize)]
struct Theirs {
    activation_function: String,
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_inner: Option<usize>,
    n_positions: Option<usize>,
    /// Older files only have the context length.
    n_ctx: Option<usize>,
    vocab_size: usize,
    layer_norm_epsilon: f64,
    scale_attn_weights: Option<bool>,
    scale_attn_by_inverse_layer_idx: Option<bool>,
    add_cross_attention: Option<bool>,
    tie_word_embeddings: Option<bool>,
}

/// The same as our settings.
fn configuration(theirs: &Theirs, tokenizer: Tokenizer) -> Result<Config> {
    let activation = &theirs.activation_function;
    if !["gelu_new", "gelu_pytorch_tanh"].contains(&activation.as_str()) {
        return Err(Error::new(format!(
            "activation_function = {activation:?}: only gelu_new or gelu_pytorch_tanh, GELU in its tanh form, is supported"
        )));
    }
    for (key, found, only) in [
        ("scale_attn_weights", theirs.scale_attn_weights, true),
        ("scale_attn_by_inverse_layer_idx", theirs.scale_attn_by_inverse_layer_idx, false),
        ("add_cross_attention", theirs.add_cross_attention, false),
        ("tie_word_embeddings", theirs.tie_word_embeddings, true),
    ] {
        if found.is_some_and(|found| found != only) {
            return Err(Error::new(format!("{key} = {}: only {only} is supported", !only)));
        }
    }
    let positions = theirs.n_positions.or(theirs.n_ctx).ok_or_else(|| Error::new("n_positions is missing"))?;
    let (vocab, ids) = (theirs.vocab_size, tokenizer.vocab());
    if vocab < ids || vocab > ids.next_multiple_of(PADDING) {
        return Err(Error::new(format!(
            "vocab_size = {vocab} does not fit tokenizer {tokenizer}, which has {ids} ids: name the model's own by --tokenizer"
        )));
    }
    let model = ModelConfig {
        kind: ModelKind::Gpt2,
        layers: theirs.n_layer,
        dim: theirs.n_embd,
        heads: theirs.n_head,
        ffn: theirs.n_inner.unwrap_or(0),
        vocab,
        seq: positions,
        max_seq: positions,
        window: positions,
        norm_eps: theirs.layer_norm_epsilon,
        ..ModelConfig::default()
    };
    let train = TrainConfig { batch: 1, ..TrainConfig::default() };
    let data = DataConfig { tokenizer, chunking: Chunking::Windows, ..DataConfig::default() };
    Config { model, train, data, ..Config::default() }.resolved().map_err(|e| e.at(OUR_KEYS))
}

/// The tensors of one file, or of several.
struct Weights {
    /// The file, or the index of several.
    path: PathBuf,
    files: Vec<SafeTensors<'static>>,
}

/// The relevant part of an index.
#[derive(Deserialize)]
struct Index {
    /// The file of every tensor.
    weight_map: BTreeMap<String, PathBuf>,
}

impl Weights {
    fn open(folder: &Path) -> Result<Self> {
        let (path, index) = (folder.join(WEIGHTS), folder.join(INDEX));
        if path.exists() || !index.exists() {
            if !path.exists() {
                return Err(missing(folder, WEIGHTS));
            }
            return Ok(Self { files: vec![SafeTensors::open(&path)?], path });
        }
        let Index { weight_map } = json::read(&index)?;
        let names: BTreeSet<&PathBuf> = weight_map.values().collect();
        let open = |name: &&PathBuf| SafeTensors::open(&folder.join(name)).map_err(|e| e.at(index.display()));
        let files: Vec<_> = names.iter().map(open).collect::<Result<_>>()?;
        for (name, file) in names.iter().zip(&files) {
            // Each tensor must be in exactly the file that the index names.
            let listed = weight_map.iter().filter(|(_, place)| place == name).map(|(tensor, _)| tensor.clone());
            let (listed, found) = (listed.collect(), file.names().into_iter().collect::<BTreeSet<_>>());
            if let Some(tensor) = found.symmetric_difference(&listed).next() {
                let (has, says) = if found.contains(tensor) { ("has", "has not") } else { ("has no", "has") };
                let (name, index) = (name.display(), index.display());
                return Err(Error::new(format!("{name} {has} tensor {tensor:?}, {index} says that it {says}")));
            }
        }
        Ok(Self { path: index, files })
    }

    /// The file with that tensor.
    fn of(&self, name: &str) -> Result<&SafeTensors<'static>> {
        let file = self.files.iter().find(|file| file.info(name).is_ok());
        file.ok_or_else(|| Error::new(format!("it has no tensor {name:?}")))
    }

    /// Whether there is a tensor of that name.
    fn has(&self, name: &str) -> bool {
        self.of(name).is_ok()
    }
}

/// Fills the parameters.
fn read(weights: &Weights, params: &Params, store: &mut Store) -> Result<()> {
    let prefix = if weights.has(&format!("{PREFIX}wte.weight")) { PREFIX } else { "" };
    let mut known = BTreeSet::new();
    for p in params.iter() {
        for part in p.parts() {
            let theirs = NAMES.iter().fold(part.name.to_string(), |name, (ours, theirs)| name.replace(ours, theirs));
            let name = format!("{prefix}{theirs}");
            // Embedding tables are not transposed.
            let is_transposed = p.is_matrix() && part.name.starts_with("layers.");
            let mut shape = part.shape;
            if is_transposed {
                shape.reverse();
            }
            let file = weights.of(&name)?;
            file.expect_shape(&name, &shape)?;
            let mut values = file.get_f64(&name)?;
            if is_transposed {
                let [inputs, outputs] = [shape[0], shape[1]];
                values = (0..outputs * inputs).map(|i| values[i % inputs * outputs + i / inputs]).collect();
            }
            if let Some(i) = values.iter().position(|x| !x.is_finite()) {
                return Err(Error::new(format!("tensor {name:?} has {} at element {i}", values[i])));
            }
            store.get_mut(p.id).set_f64(&values);
            known.insert(name);
        }
    }
    let masks = |name: &str| name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias");
    let head = "lm_head.weight";
    let mut names = weights.files.iter().flat_map(SafeTensors::names);
    if let Some(name) = names.find(|name| !known.contains(name) && !masks(name) && name != head) {
        return Err(Error::new(format!("tensor {name:?} is not part of the GPT-2 that {CONFIG} describes")));
    }
    // A stored head must equal the embedding.
    let embedding = format!("{prefix}wte.weight");
    if weights.has(head) && weights.of(head)?.get_f64(head)? != weights.of(&embedding)?.get_f64(&embedding)? {
        return Err(Error::new(format!(
            "tensor {head:?} differs from {embedding:?}: only a head tied to the embedding is supported"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
