use super::*;
use crate::config::{Masking, ModelKind};
use crate::diffusion::{MD4, MDLM, METHODS, SEDD, Schedule, Told, by_grid, fill};
use crate::generate::{Sampler, Writing};
use crate::model::TimeEmbedding;
use crate::safetensors::SafeTensors;
use engine::DType;

/// The numbers of an independent implementation.
fn golden() -> SafeTensors<'static> {
    SafeTensors::parse(&include_bytes!("../../../../tests/fixtures/diffusion_tiny.safetensors")[..]).unwrap()
}

fn embedding(file: &SafeTensors) -> TimeEmbedding {
    let size = |key: &str| file.metadata(key).unwrap();
    TimeEmbedding { frequencies: size("frequencies"), width: size("cond_dim") }
}

/// The file's network in f64, for calls on `rows` texts.
fn network(file: &SafeTensors, method: Method, time: Option<TimeEmbedding>, rows: usize) -> (Store, Foreteller) {
    let size = |key: &str| file.metadata::<usize>(key).unwrap();
    let (seq, vocab) = (size("seq"), size("vocab"));
    let model = ModelConfig {
        kind: ModelKind::Ar,
        layers: size("n_layers"),
        dim: size("dim"),
        heads: size("n_heads"),
        ffn: size("ffn_hidden"),
        vocab,
        seq,
        max_seq: seq,
        window: seq,
        latents: 1,
        norm_eps: file.metadata("norm_eps").unwrap(),
        rope_theta: file.metadata("rope_theta").unwrap(),
    };
    let mut store = Store::default();
    let params = Params::denoiser(&model, Some(embedding(file)), DType::F64, &mut store);
    params.load(&mut store, file, "w.").unwrap();
    let kept = |name: &str| time.is_some() || !(name.starts_with("time_embedding.") || name.contains("modulation."));
    let params = params.with_ids(params.iter().map(|p| kept(&p.name).then_some(p.id)));
    let texts = MaskedTexts::new(&model, time, [rows, seq], DType::F64, &mut store);
    let masker = Masker { schedule: Schedule::Linear, masking: Masking::Bernoulli, seed: 0 };
    let inputs = Masked { texts, method, masker, shape: Shape { rows, positions: seq, vocab } };
    let foreteller = Foreteller::of(inputs, &model, &params, &mut store).unwrap();
    (store, foreteller)
}

/// Text and infilled text of an independent implementation, after every step, from its uniform numbers.
#[test]
fn generation_draws_the_golden_tokens() {
    let file = golden();
    let (seq, vocab) = (file.metadata("seq").unwrap(), file.metadata("vocab").unwrap());
    let embedding = embedding(&file);
    for (name, method, time, top_p) in [("sample", MDLM, None, 1.0), ("infill", MD4, Some(embedding), 0.9)] {
        let (mut store, foreteller) = network(&file, method, time, 1);
        let mut network = foreteller.on(&mut store);
        let sampler = Sampler::new(&Writing { top_p, ..Writing::default() }, 0).unwrap();
        let floats = |what: &str| file.get_f64(&format!("{name}.{what}")).unwrap();
        let (grid, uniforms) = (floats("grid"), floats("uniforms"));
        let ids = file.get_i64(&format!("{name}.trace")).unwrap().into_iter().map(|id| id as i32).collect::<Vec<_>>();
        for b in 0..2 {
            let trace = |step: usize| &ids[(step * 2 + b) * seq..][..seq];
            let masked: Vec<_> = (0..seq).filter(|&i| trace(0)[i] == vocab as i32).collect();
            let given = |step, i| [0, 1].map(|k| uniforms[((step * 2 + b) * seq + i) * 2 + k]);
            let reveals = by_grid(&masked, Schedule::Linear, &grid, given);
            let (mut text, mut calls) = (trace(0).to_vec(), reveals.iter());
            fill(&mut network, &mut text, &reveals, &sampler, vocab, &mut |now| {
                let t = calls.next().unwrap().t;
                let step = grid.iter().position(|&time| time == t).unwrap();
                assert_eq!(now, trace(step + 1), "{name}, step {step}");
                Ok(())
            })
            .unwrap();
            assert_eq!(text, trace(grid.len() - 1));
        }
    }
}

/// The costs of the toy text's masked positions, by the set of them and the time that the network is told.
struct Toy<'a> {
    file: &'a SafeTensors<'a>,
    store: Store,
    foreteller: Foreteller,
}

impl<'a> Toy<'a> {
    /// All sets of masks in a call.
    const ROWS: usize = 64;

    fn new(file: &'a SafeTensors<'a>, method: Method) -> Self {
        let (store, foreteller) =
            network(file, method, (method.told != Told::Nothing).then(|| embedding(file)), Self::ROWS);
        Self { file, store, foreteller }
    }

    /// Σ of the costs of masked positions for every set of masks, whose bits are positions. Every row has a time.
    fn costs(&mut self, sets: &[usize], times: &[f64], cost: Cost) -> Vec<f64> {
        let ids = self.file.get_i64("toy.tokens").unwrap();
        let mut network = self.foreteller.on(&mut self.store);
        let Shape { positions, vocab, .. } = Network::shape(&network);
        let (mut seen, mut asked) = (Seen::default(), Vec::new());
        for (row, (set, &t)) in sets.iter().zip(times).enumerate() {
            let mut tokens = vec![0; positions];
            for (i, &id) in ids.iter().enumerate() {
                tokens[i] = id as i32;
                if set >> i & 1 == 1 {
                    asked.push((row * positions + i, id as i32));
                    tokens[i] = vocab as i32;
                }
            }
            seen.tokens.extend(tokens);
            seen.lengths.push(ids.len() as i32);
            seen.times.push(t);
        }
        let mut sums = vec![0.0; sets.len()];
        for (costs, (at, _)) in network.costs(&seen, &asked).unwrap().iter().zip(asked) {
            sums[at / positions] += cost.of(*costs);
        }
        sums
    }

    /// E Σ of the costs at time t, over all sets of masks, by enumeration.
    fn mean(&mut self, t: f64, cost: Cost) -> f64 {
        let sets: Vec<usize> = (0..Self::ROWS).collect();
        let costs = self.costs(&sets, &[t; Self::ROWS], cost);
        let odds = |set: usize| t.powi(set.count_ones() as i32) * (1.0 - t).powi(6 - set.count_ones() as i32);
        sets.iter().zip(costs).map(|(&set, cost)| odds(set) * cost).sum()
    }
}

#[track_caller]
fn close(ours: f64, golden: f64, tolerance: f64) {
    assert!((ours / golden - 1.0).abs() < tolerance, "{ours}, must be {golden}");
}

/// One replicate of the bound by the number of masks, for all three models.
#[test]
fn golden_draws_by_the_number_of_masks() {
    let file = golden();
    let masked = file.get_i64("count.masked").unwrap();
    let set = |row: &[i64]| row.iter().enumerate().map(|(i, &is)| (is as usize) << i).sum::<usize>();
    let sets: Vec<usize> = masked.chunks(6).map(set).collect();
    for method in METHODS {
        let costs = Toy::new(&file, method).costs(&sets, &file.get_f64("count.t").unwrap(), method.cost);
        let golden = file.get_f64(&format!("count.{}", method.name)).unwrap();
        for ((cost, set), golden) in costs.iter().zip(&sets).zip(golden) {
            close(cost * 6.0 / f64::from(set.count_ones()), golden, 1e-9);
        }
    }
}

/// The bound of T equal steps of generation, and SEDD's in continuous time, with the price of scores that do not sum to one and
/// without it.
#[test]
fn golden_bounds_of_networks_that_are_told_the_time() {
    let file = golden();
    let mut md4 = Toy::new(&file, MD4);
    for (steps, golden) in [1, 2, 4, 16].iter().zip(file.get_f64("toy.md4.nelbo_steps").unwrap()) {
        let nats = (1..=*steps).map(|i| md4.mean(f64::from(i) / f64::from(*steps), Cost::LogP) / f64::from(i));
        close(nats.sum(), golden, 1e-9);
    }
    // Smooth in σ, which the network is told: 24 panels of three Gauss-Legendre points, dt/t by dσ.
    let (mut sedd, last) = (Toy::new(&file, SEDD), -(1e-3f64.ln()));
    for (name, cost) in [("toy.sedd.nelbo", Cost::ScoreEntropy), ("toy.sedd.nelbo_normalised", Cost::LogP)] {
        let points = (0..24).flat_map(|panel| {
            [(-1.0, 5.0), (0.0, 8.0), (1.0, 5.0)]
                .map(|(side, weight)| (f64::from(panel) + 0.5 + side * 0.15f64.sqrt(), weight / 18.0))
        });
        let nats = points.map(|(x, weight)| {
            let sigma = x * last / 24.0;
            let (t, slope) = (-(-sigma).exp_m1() / 0.999, (-sigma).exp() / 0.999);
            weight * last / 24.0 * slope / t * sedd.mean(t, cost)
        });
        close(nats.sum(), file.get_f64(name).unwrap()[0], 1e-6);
    }
}
