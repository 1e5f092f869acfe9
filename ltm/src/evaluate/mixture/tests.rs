use super::*;
use crate::config::ModelKind;
use crate::evaluate::log_mean;
use crate::learn::Score;
use engine::rng::Stream;

const N: usize = 12;

/// A model with 17 tokens and random weights, all of them large.
fn model(kind: ModelKind) -> (Config, Params, Store) {
    let mut config = Config::default();
    config.model = ModelConfig {
        kind,
        layers: 2,
        dim: 16,
        heads: 2,
        ffn: 24,
        vocab: 17,
        seq: N,
        max_seq: N + 3,
        window: 5,
        latents: 2,
        ..config.model
    };
    config.fast.steps = 6;
    config.train.seed = 3;
    let mut store = Store::default();
    let params = Params::new(&config.model, engine::DType::F32, &mut store);
    for (site, p) in params.iter().enumerate() {
        let mut values = vec![0.0; p.spec.shape.numel()];
        Stream::new(5, site as u32).fill_normal(0, &mut values, |x| 0.6 * x);
        store.get_mut(p.id).set_f64(&values);
    }
    (config, params, store)
}

const TEXT: [u16; N] = [16, 3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];

fn log_ps(mixture: &Mixture, store: &mut Store, blocks: &[Block<'_>]) -> Vec<Vec<f64>> {
    let mut all = vec![Vec::new(); blocks.len()];
    let see = |row: usize, place: usize, seen: &Prediction| {
        all[row].push(blocks[row].text.get(place).map_or(0.0, |&token| seen.log_p(token)));
    };
    mixture.predict(store, blocks, see).unwrap();
    all
}

#[test]
fn texts_are_cut_early_and_then_evenly() {
    assert_eq!(blocks(150, 64, None), [1..8, 8..16, 16..32, 32..64, 64..128, 128..150]);
    assert_eq!(blocks(20, 10, None), [1..8, 8..10, 10..20]);
    assert_eq!((blocks(1, 64, None).len(), blocks(9, 64, Some(4))), (0, vec![1..4, 4..9]));
    for whole in [blocks(7, 64, None), blocks(7, 64, Some(0)), blocks(7, 64, Some(1)), blocks(7, 64, Some(7))] {
        assert!(whole.len() == 1 && whole[0] == (1..7), "{whole:?}");
    }
}

/// The sum over all tokens of the probability of each, every one in a request of its own that has the token in its text.
fn total(mixture: &Mixture, store: &mut Store, places: Range<usize>, peeks: bool) -> f64 {
    let at = places.end - 1;
    let mut sum = 0.0;
    for token in 0..17 {
        let text = [&TEXT[..at], &[token]].concat();
        let block = [Block { text: &text, places: places.clone() }];
        mixture.fit(store, &block, |block| if peeks { block.places.end } else { block.places.start }).unwrap();
        mixture
            .read(store, &block, |_, place, seen| sum += if place == at { seen.log_p(token).exp() } else { 0.0 })
            .unwrap();
    }
    sum
}

#[test]
fn probabilities_of_all_next_tokens_sum_to_one_unless_the_posterior_has_seen_the_token() {
    for kind in [ModelKind::Ltm, ModelKind::Ar, ModelKind::ArLatent, ModelKind::Gpt2] {
        let (config, params, mut store) = model(kind);
        let mixture = Mixture::new(&config, [1, N, N], 5, &params, &mut store).unwrap();
        // From the prior, at a cut, within a block, and behind a long context.
        for places in [1..2, 1..6, 4..5, 4..9, 11..12] {
            let sum = total(&mixture, &mut store, places.clone(), false);
            assert!((sum - 1.0).abs() < 1e-6, "{kind} {places:?}: {sum}");
        }
        let peeked = total(&mixture, &mut store, 4..5, true);
        assert_eq!((peeked - 1.0).abs() > 1e-3, kind.infers(), "{kind}: {peeked}");
    }
}

#[test]
fn a_block_costs_the_mean_probability_of_its_draws() {
    let (config, params, mut store) = model(ModelKind::Ltm);
    let draws = 4;
    let mixture = Mixture::new(&config, [1, N, N], draws, &params, &mut store).unwrap();
    let block = [Block { text: &TEXT, places: 5..N }];
    let sum: f64 = log_ps(&mixture, &mut store, &block)[0].iter().sum();
    // The posterior is still there; the score of the same draws, by the head that `ltm eval` uses.
    let Posterior { seen, fast, .. } = mixture.latents.as_ref().unwrap();
    let score = Score::new(&config.model, &params, seen, Some(&fast.latents), config.train.seed, &mut store);
    let score = score.unwrap();
    let mut targets = vec![IGNORED; N];
    (5..N).for_each(|place| targets[place - 1] = TEXT[place].into());
    store.get_mut(seen.tokens).write(&TEXT.map(i32::from));
    store.get_mut(seen.targets).write(&targets);
    score.begin(&mut store);
    let costs: Vec<f64> = (0..draws as u32).map(|s| score.draw(&mut store, s).unwrap().nll[0]).collect();
    let (nats, _) = log_mean(&costs);
    assert!((nats + sum).abs() < 1e-5 * nats, "{nats} {sum}");
    assert!(costs.iter().any(|cost| (cost - costs[0]).abs() > 1e-2), "the draws differ: {costs:?}");
}

#[test]
fn neither_company_nor_the_length_of_a_plan_changes_a_bit() {
    let (config, params, mut store) = model(ModelKind::Ltm);
    let other: Vec<u16> = (0..9).collect();
    let block = |text, places| Block { text, places };
    let mine = block(&TEXT, 6..N + 1);
    let mut of = |config: &Config, size, blocks: &[Block<'_>], row: usize| {
        log_ps(&Mixture::new(config, size, 3, &params, &mut store).unwrap(), &mut store, blocks).swap_remove(row)
    };
    let alone = of(&config, [1, 5, N], std::slice::from_ref(&mine), 0);
    let others = [block(&other, 1..4), block(&other, 2..10), mine.clone()];
    assert_eq!(alone, of(&config, [4, N, N + 3], &others, 2));
    let mut reseeded = config.clone();
    reseeded.train.seed += 1;
    assert_ne!(alone, of(&reseeded, [1, 5, N], &[mine], 0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (config, params, mut store) = model(ModelKind::Ar);
    let mixture = Mixture::new(&config, [1, 6, 6], 1, &params, &mut store).unwrap();
    let mut refuse = |text: &[u16], places| {
        let block = Block { text, places };
        mixture.predict(&mut store, &[block], |_, _, _| ()).unwrap_err().to_string()
    };
    for places in [0..3, 3..3, 1..9, 2..14] {
        assert!(refuse(&TEXT, places).contains("6 positions"));
    }
    assert!(refuse(&[1, 17, 2], 1..4).contains("beyond the vocabulary"));
    let masked = Config { model: ModelConfig { kind: ModelKind::Mdlm, ..config.model.clone() }, ..config.clone() };
    let error = Mixture::new(&masked, [1, 6, 6], 1, &params, &mut store).unwrap_err().to_string();
    assert!(error.contains("mdlm"), "{error}");
}
