use super::any_order::AnyOrder;
use super::{Sampler, Thinker, Walk, Writing, draw_prior};
use crate::config::{Config, ModelKind, Work};
use crate::diffusion::Lengths;
use crate::evaluate::key;
use crate::model::Params;
use autograd::{Id, Store};
use engine::{Error, Result};

/// A text to generate.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    /// The tokens that it begins with, at least one. The first `front` of them stand before every text.
    pub before: &'a [u16],
    /// The number of tokens that stand before every text.
    pub front: usize,
    /// The tokens after it, which only masked diffusion reads.
    pub after: &'a [u16],
    /// Most tokens to draw.
    pub tokens: usize,
    /// Ids below this number may be drawn.
    pub ids: usize,
    /// How they are drawn; of it the temperature, `top_k`, `top_p` and the seed.
    pub writing: &'a Writing,
    /// The number of this text among those with the same seed and beginning.
    pub sample: u32,
}

/// Takes a token with the logits that it was drawn from, if tokens are drawn in order, and says whether to go on.
pub type Each<'a> = dyn FnMut(u16, Option<&[f64]>) -> Result<bool> + 'a;

/// How tokens are drawn.
#[derive(Debug)]
enum Way {
    /// One after the other; with latents, if the model takes some, that are inferred if it infers them.
    InOrder {
        thinker: Option<Box<Thinker>>,
        z: Option<Id>,
        walk: Box<Walk>,
    },
    AnyOrder(Box<AnyOrder>),
}

/// Generates any number of texts with one plan, from tokens to tokens. The text depends only on the order.
#[derive(Debug)]
pub struct Teller {
    config: Config,
    way: Way,
}

impl Teller {
    /// Plans generation with the weights in `store`.
    ///
    /// # Errors
    /// If the model is an oracle, which is told facts rather than tokens, or the device lacks the memory.
    pub fn new(config: &Config, params: &Params, store: &mut Store, lengths: Option<&Lengths>) -> Result<Self> {
        let model = &config.model;
        let way = match model.kind.method() {
            Some(method) => {
                Way::AnyOrder(AnyOrder::new(config, method, &Writing::default(), lengths, params, store)?.into())
            }
            None if model.kind == ModelKind::Oracle => {
                return Err(Error::usage(
                    "model.kind = oracle writes from facts that it is told, not from a prompt alone",
                ));
            }
            None => {
                let thinker = model.kind.infers().then(|| Thinker::new(config, params, store)).transpose()?;
                let z = thinker.as_ref().map(Thinker::z);
                let walk = Walk::new(model, params, z, store)?.into();
                Way::InOrder { thinker: thinker.map(Box::new), z, walk }
            }
        };
        config.check_room(store, Work::Generation)?;
        Ok(Self { config: config.clone(), way })
    }

    /// Draws tokens and hands each to `each`, with the logits that it was drawn from if tokens are drawn in order. `each` says
    /// whether to go on. Masked diffusion draws all of them first. `check` is called before every call of the network. Returns the KL of
    /// every inferred latent vector to the prior, in nats, the first layer's first; nothing if none were inferred.
    ///
    /// # Errors
    /// If an option is out of range, the weights are damaged, or `check` or `each` fails.
    pub fn tell(
        &mut self,
        store: &mut Store,
        order: &Order<'_>,
        check: &dyn Fn() -> Result<()>,
        each: &mut Each<'_>,
    ) -> Result<Vec<f64>> {
        let mut kl = Vec::new();
        let Order { before, front, after, tokens, ids, writing, sample } = *order;
        let mut sampler = Sampler::new(writing, sample)?;
        match &mut self.way {
            Way::InOrder { thinker, z, walk } => {
                match (thinker, *z) {
                    (Some(thinker), _) if before.len() > front.max(1) => {
                        let round = key(writing.seed, before).wrapping_add(sample);
                        thinker.infer(&self.config, store, before, round)?;
                        kl = thinker.kl_by_latent(store)?;
                    }
                    (_, Some(z)) => draw_prior(z, store, writing.seed, sample),
                    (_, None) => {}
                }
                walk.begin(store);
                let (mut text, mut logits) = (before.to_vec(), Vec::new());
                for &token in before {
                    check()?;
                    logits = walk.step(store, token)?;
                }
                for drawn in 1..=tokens {
                    let token = sampler.next(&logits[..ids], &text[front..])?;
                    if !each(token, Some(&logits))? {
                        break;
                    }
                    if drawn < tokens {
                        check()?;
                        logits = walk.step(store, token)?;
                    }
                    text.push(token);
                }
            }
            Way::AnyOrder(way) => {
                way.reseed(writing.seed);
                let gap = way.fill(store, before, tokens, after, &sampler, sample, ids, &mut |_| check())?;
                for token in gap {
                    if !each(token, None)? {
                        break;
                    }
                }
            }
        }
        Ok(kl)
    }
}
