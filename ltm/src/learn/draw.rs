use super::{Inputs, Latents};
use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::{DType, Result, Spec};
use kernels::latents::LatentDraw;

/// Draws from a fitted posterior, independent of the noise that it was fitted to.
#[derive(Debug)]
pub struct Draw {
    plan: Plan,
    log_ratio: Id,
    number: Id,
    /// The latest draw, `[B, L·K, d]`.
    pub z: Id,
}

impl Draw {
    /// Plans draws from `latents` for the batch in `inputs`, to be written to `at`: the buffers of ε and z.
    pub fn new(latents: &Latents, at: [Id; 2], inputs: &Inputs, seed: u64, store: &mut Store) -> Result<Self> {
        let [eps, z] = at;
        let log_ratio = store.alloc(Spec::new(store.get(z).dtype(), &[inputs.batch]));
        let number = store.alloc(Spec::new(DType::I32, &[1]));
        let mut plan = Plan::new(&Graph::new(), store, &Request::default())?;
        let ins = [latents.mu, latents.logvar, inputs.samples, number];
        plan.push_update(store, Phase::Step, "latents", LatentDraw { seed }, &ins, &[eps, z, log_ratio]);
        Ok(Self { plan, log_ratio, number, z })
    }

    /// Draw number `number`, independent of all other numbers; returns log q(z|x) − log p(z) per sample, in nats.
    pub fn run(&self, store: &mut Store, number: u32) -> Result<Vec<f64>> {
        store.get_mut(self.number).write(&[number as i32]);
        self.plan.run(store, Phase::Step);
        store.get(self.log_ratio).read_f64()
    }
}
