use engine::Result;
use ltm::config::{Config, ModelKind};
use ltm::data::Tokenizer;
use ltm::evaluate::EARLY;
use ltm::generate::front;
use serde::Serialize;
use std::sync::Arc;

/// How a model's tokens get their log-probabilities. With other values the numbers are those of another model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scoring {
    /// `prefix`: latents are inferred from the tokens before a block of text. `nll`: exact. `none`: masked diffusion.
    pub protocol: &'static str,
    /// What only latent models have.
    #[serde(flatten)]
    pub latent: Option<Latent>,
}

/// How latents are inferred.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latent {
    /// Fast steps T of an inference.
    pub fast_steps: usize,
    /// Draws S of the latents.
    pub draws: usize,
    /// Behind which tokens texts are cut into blocks, those put before a text included.
    pub cuts: String,
    /// Whose latents predict the tokens that are drawn.
    pub drawn: &'static str,
}

impl Scoring {
    /// The scoring of a text that is cut only behind its context.
    #[must_use]
    pub fn behind_contexts(&self) -> Self {
        let cut = |latent: &Latent| Latent { cuts: "context_tokens".into(), ..latent.clone() };
        Self { latent: self.latent.as_ref().map(cut), ..*self }
    }

    /// The same on one line.
    pub fn fingerprint(&self) -> String {
        match &self.latent {
            Some(Latent { fast_steps, draws, cuts, .. }) => {
                format!("{} T={fast_steps} S={draws} cuts={cuts}", self.protocol)
            }
            None => self.protocol.into(),
        }
    }
}

/// What requests need to know of a model.
pub struct Facts {
    /// Its name in requests.
    pub name: String,
    /// What it is.
    pub kind: ModelKind,
    /// Its tokenizer.
    pub tokenizer: Arc<dyn Tokenizer>,
    /// The tokens before every text.
    pub front: Vec<u16>,
    /// Tokens of a training sequence N: the longest prompt.
    pub sequence: usize,
    /// The number of positions, if they are learned.
    pub positions: Option<usize>,
    /// How tokens get log-probabilities.
    pub scoring: Scoring,
    /// The latents, if they are inferred.
    pub latents: Option<Grid>,
}

/// The numbers of latent vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Grid {
    /// Layers that have some.
    pub layers: usize,
    /// Vectors of each layer.
    pub per_layer: usize,
}

impl Facts {
    /// The facts of a model called `name`, whose tokens are scored by so many draws, with a cut every `refit` tokens.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn new(
        name: String,
        config: &Config,
        tokenizer: Arc<dyn Tokenizer>,
        draws: usize,
        refit: usize,
    ) -> Result<Self> {
        let kind = config.model.kind;
        let protocol = match kind.method() {
            Some(_) => "none",
            None if kind.infers() => "prefix",
            None => "nll",
        };
        let early: String = EARLY.into_iter().filter(|&cut| cut < refit).map(|cut| format!("{cut},")).collect();
        let cuts = format!("{early}{refit} and every {refit}");
        let latent = Latent { fast_steps: config.fast.steps, draws, cuts, drawn: "one draw, inferred from the prompt" };
        let scoring = Scoring { protocol, latent: kind.infers().then_some(latent) };
        Ok(Self {
            name,
            kind,
            front: front(&*tokenizer, config.data.chunking)?,
            tokenizer,
            sequence: config.model.seq,
            positions: config.model.positions(),
            scoring,
            latents: kind.infers().then_some(Grid { layers: config.model.layers, per_layer: config.model.latents }),
        })
    }

    /// The end token and the begin token, with the texts that stand for them. `ltm eval` has the begin token before a text, too.
    pub fn specials(&self) -> [(u16, String); 2] {
        [self.tokenizer.end(), self.tokenizer.begin()].map(|token| (token, self.shown(token)))
    }

    /// A token as text: a token that is part of a character as its bytes, so that no two have the same text.
    pub fn shown(&self, token: u16) -> String {
        let bytes = self.tokenizer.token_bytes(token).unwrap_or_default();
        match str::from_utf8(bytes) {
            Ok("") if token == self.tokenizer.end() => "<|endoftext|>".into(),
            Ok("") if token == self.tokenizer.begin() => "<|begin|>".into(),
            Ok(text) => text.into(),
            Err(_) => bytes.iter().fold("bytes:".into(), |text, byte| format!("{text}\\x{byte:02x}")),
        }
    }
}
