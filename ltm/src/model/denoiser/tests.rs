use super::*;
use crate::config::ModelKind;
use autograd::{Plan, Request};
use engine::eager::relative_error;
use engine::rng::Stream;

const N: usize = 7;
const VOCAB: usize = 11;
const MASK: i32 = VOCAB as i32;
const TIME: TimeEmbedding = TimeEmbedding { frequencies: 8, width: 5 };

fn config() -> ModelConfig {
    ModelConfig {
        kind: ModelKind::Ar,
        layers: 2,
        dim: 12,
        heads: 2,
        ffn: 9,
        vocab: VOCAB,
        seq: N,
        max_seq: N,
        window: N,
        latents: 1,
        norm_eps: 1e-5,
        rope_theta: 1e4,
    }
}

/// Every parameter random, also those that begin as zeros.
fn random(params: &Params, store: &mut Store) {
    for (site, p) in params.iter().enumerate() {
        let mut values = vec![0.0; p.spec.shape.numel()];
        Stream::new(3, site as u32).fill_normal(0, &mut values, |x| 0.5 * x);
        store.get_mut(p.id).set_f64(&values);
    }
}

/// A text whose tokens depend on its number.
fn text(seed: i32, length: usize, masks: usize) -> MaskedText {
    let token = |i: usize| (seed + 3 * i as i32) % MASK;
    let is_masked = |i: usize| i * 5 % N < masks;
    MaskedText {
        ids: (0..length).map(|i| if is_masked(i) { MASK } else { token(i) }).collect(),
        targets: (0..length).map(|i| if is_masked(i) { token(i) } else { -1 }).collect(),
        weight: 0.25 * f64::from(seed),
        tau: f64::from(seed) / 3.0,
    }
}

/// Logits, nll and lse of every text in a row of `n`, and the gradients of all weights.
fn run(
    params: &Params,
    store: &mut Store,
    n: usize,
    time: Option<TimeEmbedding>,
    texts: &[MaskedText],
) -> Vec<Vec<f64>> {
    let inputs = MaskedTexts::new(&config(), time, [texts.len(), n], params.dtype, store);
    inputs.load(store, texts).unwrap();
    let mut denoiser = Denoiser::record(&config(), params, &inputs, store).unwrap();
    let (logits, costs) = (denoiser.logits().unwrap(), denoiser.costs(LmHead::CrossEntropy).unwrap());
    let keep = vec![logits, costs.nll, costs.lse];
    let (root, wants) = (Some(costs.loss), denoiser.weights.clone());
    let plan = Plan::new(&denoiser.graph, store, &Request { root, wants, keep, ..Request::default() }).unwrap();
    plan.run_all(store);
    let values = [logits, costs.nll, costs.lse].map(|value| plan.value(value));
    let gradients = denoiser.weights.iter().map(|&weight| plan.grad(weight));
    values.into_iter().chain(gradients).map(|id| store.get(id).to_f64()).collect()
}

fn told(dtype: DType) -> (Params, Store) {
    let mut store = Store::default();
    let params = Params::denoiser(&config(), Some(TIME), dtype, &mut store);
    random(&params, &mut store);
    (params, store)
}

/// The weights and hidden sizes of the paper's and the public code's sizes.
#[test]
fn numbers_of_weights() {
    let time = Some(TimeEmbedding { frequencies: 256, width: 128 });
    for (time, [dim, layers, heads, ffn], hidden, weights) in [
        (None, [512, 3, 8, 0], 2059, 38_369_792),
        (time, [512, 3, 8, 0], 1762, 38_371_584),
        (None, [768, 12, 12, 2048], 2048, 123_552_768),
        (time, [768, 12, 12, 2048], 2048, 130_933_504),
    ] {
        let config = ModelConfig { dim, layers, heads, ffn, vocab: 50_258, ..config() };
        assert_eq!(ffn_hidden(&config, time), hidden);
        // Memory that is never written costs nothing.
        assert_eq!(Params::denoiser(&config, time, DType::F32, &mut Store::default()).count(), weights);
    }
    // Where modulations have more weights than cross-attention.
    assert_eq!(ffn_hidden(&ModelConfig { dim: 64, ffn: 0, ..config() }, time), 1);
}

/// At first nothing is modulated and all gates are zero, and the other weights are those of a model that is told nothing.
#[test]
fn every_block_begins_as_the_identity() {
    let mut store = Store::default();
    let all = [None, Some(TIME)].map(|time| Params::denoiser(&config(), time, DType::F64, &mut store));
    all.iter().for_each(|params| params.init(&mut store, 1));
    let [free, told] = &all;
    for (free, told) in free.iter().zip(told.iter()) {
        assert_eq!((&free.name, store.get(free.id).to_f64()), (&told.name, store.get(told.id).to_f64()));
    }
    for p in told.iter().skip(free.iter().count()) {
        let is_zero = store.get(p.id).to_f64().iter().all(|&x| x == 0.0);
        assert_eq!(is_zero, !(p.name.starts_with("time_embedding") && p.is_matrix()), "{}", p.name);
        assert_eq!(p.decays(), p.name.ends_with("weight"), "{}", p.name);
    }
}

#[test]
fn features_are_cosines_and_sines() {
    let features = TimeEmbedding::of(512).features(6.9);
    assert_eq!(features.len(), 256);
    for (k, frequency) in [(0, 1.0), (64, 0.01), (127, 10_000f64.powf(-127.0 / 128.0))] {
        assert!((features[k] - (6.9 * frequency).cos()).abs() < 1e-14);
        assert!((features[128 + k] - (6.9 * frequency).sin()).abs() < 1e-14);
    }
}

#[test]
fn no_modulation_and_gates_of_one_are_the_plain_decoder() {
    let (params, mut store) = told(DType::F64);
    let d = config().dim;
    for p in params.iter().filter(|p| p.name.contains("modulation")) {
        let gate = |i: usize| if matches!(i / d, 2 | 5) { 1.0 } else { 0.0 };
        let values = (0..p.spec.shape.numel()).map(|i| if p.is_matrix() { 0.0 } else { gate(i) });
        let values: Vec<f64> = values.collect();
        store.get_mut(p.id).set_f64(&values);
    }
    let plain = params.with_ids(params.iter().map(|p| {
        let of_time = p.name.contains("modulation") || p.name.starts_with("time_embedding");
        (!of_time).then_some(p.id)
    }));
    let texts = [text(4, N, 3), text(5, N, 5), text(6, 4, 2)];
    let told = run(&params, &mut store, N, Some(TIME), &texts);
    let free = run(&plain, &mut store, N, None, &texts);
    for (i, (told, free)) in told.iter().zip(&free).enumerate() {
        let error = relative_error(told, free);
        assert!(error < 1e-13, "buffer {i} has an error of {error:e}");
    }
}

/// A model that is told nothing gives the same bits whatever the time.
#[test]
fn untold_times_change_nothing() {
    let (params, mut store) = told(DType::F32);
    let texts = [text(4, N, 3), text(5, 6, 5)];
    let [mut early, mut late] = [texts.clone(), texts];
    early.iter_mut().for_each(|text| text.tau = 0.1);
    late.iter_mut().for_each(|text| text.tau = 1000.0);
    let free = Params::denoiser(&config(), None, DType::F32, &mut store);
    random(&free, &mut store);
    assert_eq!(run(&free, &mut store, N, None, &early), run(&free, &mut store, N, None, &late));
    let [early, late] = [early, late].map(|texts| run(&params, &mut store, N, Some(TIME), &texts));
    assert!(early[0] != late[0]);
}

/// The numbers of a text are the same bits without padding, alone, and at another place in the batch.
#[test]
fn padding_neighbours_and_order_do_not_matter() {
    let (params, mut store) = told(DType::F32);
    let texts = [text(4, 5, 3), text(5, N, 5), text(6, 1, 1), text(7, 3, 0)];
    let together = run(&params, &mut store, N, Some(TIME), &texts);
    let mut turned = texts.clone();
    turned.reverse();
    let turned = run(&params, &mut store, N, Some(TIME), &turned);
    for (b, own) in texts.iter().enumerate() {
        let n = own.ids.len();
        let alone = run(&params, &mut store, n, Some(TIME), std::slice::from_ref(own));
        for (i, width) in [VOCAB, 1, 1].into_iter().enumerate() {
            let of = |all: &[f64], b: usize| all[b * N * width..][..n * width].to_vec();
            assert_eq!(of(&together[i], b), alone[i], "text {b}");
            assert_eq!(of(&turned[i], texts.len() - 1 - b), alone[i], "text {b}");
        }
    }
}

/// Without a visible token keys and values are the same everywhere, so positions make no difference; with one they do.
#[test]
fn a_fully_masked_text_has_equal_rows() {
    let (params, mut store) = told(DType::F64);
    let hidden = MaskedText { ids: vec![MASK; N], targets: vec![2; N], weight: 1.0, tau: 1.5 };
    let seen = MaskedText { ids: [&[3], &[MASK; N - 1][..]].concat(), ..hidden.clone() };
    let all = run(&params, &mut store, N, Some(TIME), &[hidden, seen]);
    let (hidden, seen) = all[0].split_at(N * VOCAB);
    let far = |rows: &[f64]| {
        rows.chunks(VOCAB).skip(2).map(|row| relative_error(row, &rows[VOCAB..2 * VOCAB])).fold(0.0, f64::max)
    };
    assert!(far(hidden) < 1e-13 && relative_error(&hidden[..VOCAB], &hidden[VOCAB..2 * VOCAB]) < 1e-13);
    assert!(far(seen) > 1e-4);
}

/// The mask's row of the embedding has a gradient through the input, and rows of padding have none.
#[test]
fn the_mask_learns_as_an_input() {
    let (params, mut store) = told(DType::F64);
    let row = |texts: &[MaskedText], store: &mut Store| -> Vec<f64> {
        let all = run(&params, store, N, Some(TIME), texts);
        all[3][VOCAB * config().dim..].to_vec()
    };
    assert!(row(&[text(4, 5, 3)], &mut store).iter().any(|&x| x != 0.0));
    // Nothing is masked, but something predicted.
    let unmasked = MaskedText { targets: vec![2; 5], ..text(4, 5, 0) };
    assert!(row(&[unmasked], &mut store).iter().all(|&x| x == 0.0));
}

#[test]
fn wrong_texts_are_refused() {
    let mut store = Store::default();
    let texts = MaskedTexts::new(&config(), None, [1, N], DType::F32, &mut store);
    let mut refuse = |text: MaskedText| texts.load(&mut store, &[text]).unwrap_err().to_string();
    let good = text(4, 5, 3);
    let long = text(4, N + 1, 3);
    assert_eq!(refuse(long), "a text of 8 ids and 8 targets, must be as many of both, at most 7");
    let beyond = MaskedText { ids: vec![MASK + 1; 5], ..good.clone() };
    assert_eq!(refuse(beyond), "token 12 is beyond the vocabulary of 11 and its mask");
    let beyond = MaskedText { targets: vec![MASK; 5], ..good.clone() };
    assert_eq!(refuse(beyond), "target 11 is beyond the vocabulary of 11");
    let error = texts.load(&mut store, &[good.clone(), good]).unwrap_err().to_string();
    assert_eq!(error, "a batch of 2 texts, must be 1");
}

/// The costs of the same positions add up to the loss.
#[test]
fn the_loss_is_the_weighted_sum() {
    let (params, mut store) = told(DType::F64);
    let texts = [text(4, 5, 3), text(5, N, 5)];
    let inputs = MaskedTexts::new(&config(), Some(TIME), [2, N], DType::F64, &mut store);
    inputs.load(&mut store, &texts).unwrap();
    for head in [LmHead::CrossEntropy, LmHead::ScoreEntropy] {
        let mut denoiser = Denoiser::record(&config(), &params, &inputs, &mut store).unwrap();
        let Costs { loss, nll, lse } = denoiser.costs(head).unwrap();
        let request = Request { keep: vec![loss, nll, lse], ..Request::default() };
        let plan = Plan::new(&denoiser.graph, &mut store, &request).unwrap();
        plan.run_all(&mut store);
        let [loss, nll, lse] = [loss, nll, lse].map(|value| store.get(plan.value(value)).to_f64());
        let mut expected = 0.0;
        for (b, text) in texts.iter().enumerate() {
            for i in (0..text.ids.len()).filter(|&i| text.ids[i] == MASK) {
                let z = lse[b * N + i].exp() / VOCAB as f64;
                let price = if head == LmHead::ScoreEntropy { z - 1.0 - z.ln() } else { 0.0 };
                expected += text.weight * (nll[b * N + i] + price);
            }
        }
        assert!((loss[0] / expected - 1.0).abs() < 1e-13);
    }
}
