use autograd::{Graph, Id, Phase, Plan, Request, Store};
use engine::{Buffer, Context, Cost, Op, Pass, Spec, Update, Want};
use kernels::reshape::Reshape;

/// The sum of the gradients of a batch's parts, a power of two of them, in a fixed tree: ((g₀ + g₁) + (g₂ + g₃)) + … . A sum of
/// floats depends on its order, so the order must not depend on who computes which part.
#[derive(Debug)]
pub struct GradientSum {
    /// Where every part's gradient is computed, and the sum ends.
    grads: Vec<Id>,
    /// A level of the tree each: the sum of a subtree that waits for its right neighbour, and the plan that adds it to `grads`.
    levels: Vec<(Vec<Id>, Plan)>,
    /// Parts added so far.
    added: usize,
}

impl GradientSum {
    /// Plans the sum of `parts` gradients, each computed in `grads`. One part costs nothing.
    pub fn new(grads: &[Id], parts: usize, store: &mut Store) -> engine::Result<Self> {
        let level = |_| {
            let waiting: Vec<Id> = grads.iter().map(|id| store.alloc(store.get(*id).spec())).collect();
            let mut plan = Plan::new(&Graph::new(), store, &Request::default())?;
            for (&from, &to) in waiting.iter().zip(grads) {
                plan.push_update(store, Phase::Step, "sum of gradients", AddTo, &[from], &[to]);
            }
            Ok((waiting, plan))
        };
        let levels = (0..parts.trailing_zeros()).map(level).collect::<engine::Result<_>>()?;
        Ok(Self { grads: grads.to_vec(), levels, added: 0 })
    }

    /// Adds the gradient that was just computed. After the last part, the sum of all is in its place.
    pub fn add(&mut self, store: &mut Store) {
        // As a binary counter carries: every full level is added, and the sum waits in the first empty one.
        let full = self.added.trailing_ones() as usize;
        self.levels[..full].iter().for_each(|(_, plan)| plan.run(store, Phase::Step));
        match self.levels.get(full) {
            Some((waiting, _)) => {
                self.grads.iter().zip(waiting).for_each(|(&from, &to)| store.copy(from, to));
                self.added += 1;
            }
            None => self.added = 0,
        }
    }
}

/// Adds a buffer to another of the same shape, as the backward pass of a reshape does.
#[derive(Clone, Copy, Debug)]
struct AddTo;

impl Update for AddTo {
    fn name(&self) -> &'static str {
        "add_to"
    }

    fn apply(&self, cx: &mut Context, ins: &[&Buffer], state: &mut [Buffer]) {
        let none = &[] as &[&Buffer];
        Reshape(ins[0].shape()).vjp(cx, &[Want::Add], none, none, ins[0], state);
    }

    fn cost(&self, ins: &[Spec], _: &[Spec]) -> Cost {
        Reshape(ins[0].shape).cost(ins, Pass::Vjp(&[Want::Add]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::data::Batch;
    use crate::run::stories;
    use crate::train::{StepReport, Trainer};
    use engine::{DType, Device};

    /// Three steps on stories with these settings, and a checksum of the state after them.
    fn steps(settings: &str) -> (Vec<StepReport>, Option<u64>) {
        let mut config = Config::preset("demo").unwrap();
        config.set_all("model.dim=16 model.heads=2 model.seq=96 train.batch=8 fast.steps=2 slow.warmup=2").unwrap();
        config.set_all(settings).unwrap();
        let mut trainer = Trainer::new(config, &Device::CPU).unwrap();
        let source = stories(&trainer.config, 1, 24).unwrap();
        let mut batch = Batch::new(8, 96);
        let step = |step: u64| {
            batch.fill(&*source, (8 * step..).map(Some)).unwrap();
            trainer.train(&batch).unwrap()
        };
        ((0..3).map(step).collect(), trainer.checksum())
    }

    /// Texts have different lengths, so a part's share of the mean is not its share of the samples.
    #[test]
    fn a_batch_in_parts_is_the_same_batch() {
        let kinds = [
            "",
            "slow.updates=1 slow.gradient=trajectory slow.optimizer=adamw",
            "model.kind=ar",
            "model.kind=mdlm",
            "model.kind=sedd",
        ];
        for kind in kinds {
            let (whole, state) = steps(kind);
            assert_eq!(steps(&format!("{kind} train.micro=8")), (whole.clone(), state), "{kind}");
            for micro in [4, 1] {
                let (parts, other) = steps(&format!("{kind} train.micro={micro}"));
                assert_ne!(other, state, "{kind}: sums of other parts");
                for (part, whole) in parts.iter().zip(&whole) {
                    let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-3 || a == b;
                    let same = close(part.nll, whole.nll) && close(part.kl, whole.kl);
                    assert!(same && close(part.grad_norm, whole.grad_norm), "{kind} {micro}: {part:?}, {whole:?}");
                    assert_eq!((part.tokens, part.bytes), (whole.tokens, whole.bytes));
                }
            }
        }
    }

    #[test]
    fn parts_are_added_in_a_tree_and_again_for_the_next_batch() {
        let mut store = Store::new(Device::CPU);
        let grad = store.alloc(Spec::new(DType::F32, &[3]));
        let of = |k: usize| [1.0 + 0.3f32.powi(k as i32), 1e7 / (k + 1) as f32, -(k as f32)];
        for parts in [1, 2, 8] {
            let mut sum = GradientSum::new(&[grad], parts, &mut store).unwrap();
            for _ in 0..2 {
                for k in 0..parts {
                    store.get_mut(grad).write(&of(k));
                    sum.add(&mut store);
                }
                let mut tree: Vec<[f32; 3]> = (0..parts).map(of).collect();
                while tree.len() > 1 {
                    tree = tree.chunks(2).map(|pair| std::array::from_fn(|i| pair[0][i] + pair[1][i])).collect();
                }
                assert_eq!(store.get(grad).as_slice::<f32>(), tree[0]);
            }
        }
    }
}
