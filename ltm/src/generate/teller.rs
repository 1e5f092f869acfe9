use super::any_order::AnyOrder;
use super::in_order::InOrder;
use super::writer::Way;
use super::{Sampler, Writing};
use crate::config::{Config, ModelKind, Work};
use crate::diffusion::Lengths;
use crate::evaluate::key;
use crate::model::Params;
use autograd::Store;
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

/// Generates any number of texts with one plan, from tokens to tokens. The text depends only on the order.
pub struct Teller(Way);

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
            None => Way::InOrder(InOrder::new(config, model.kind.infers(), params, store)?.into()),
        };
        config.check_room(store, Work::Generation)?;
        Ok(Self(way))
    }

    /// Draws tokens and hands each to `each`, with the logits that it was drawn from if tokens are drawn in order. `each` says
    /// whether to go on. Masked diffusion draws all of them first. `check` is called before an inference and before every token.
    /// Returns the KL of every inferred latent vector to the prior, in nats, the first layer's first; nothing if none were inferred.
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
        match &mut self.0 {
            Way::InOrder(way) => {
                let seed = writing.seed;
                let prompt = (before.len() > front.max(1)).then_some("");
                let round = key(seed, before).wrapping_add(sample);
                check()?;
                way.begin(store, before, prompt, seed, sample, round)?;
                if prompt.is_some() {
                    kl = way.kl_by_latent(store)?;
                }
                let mut text = before.to_vec();
                for drawn in 0..tokens {
                    check()?;
                    let logits = way.logits(store, &text, drawn, 0)?;
                    let token = sampler.next(&logits[..ids], &text[front..])?;
                    if !each(token, Some(&logits))? {
                        break;
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
