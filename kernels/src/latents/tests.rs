use super::*;
use crate::gaussian::GaussianKl;
use crate::testing::{apply, distance, forward, same_bits};
use engine::eager::garbage;

const STEPS: usize = 4;
const SIZES: [usize; 3] = [3, 5, 19];

const FRESH: Noise = noise(Renewal::Fresh);

const fn noise(renewal: Renewal) -> Noise {
    Noise { seed: 17, renewal }
}

/// The state, all garbage except the clock.
fn blank(dtype: DType, [b, s, d]: [usize; 3]) -> Vec<Buffer> {
    let tensor = |dims: &[usize]| garbage(&Device::CPU, Spec::new(dtype, dims));
    let mut state: Vec<_> = (0..8).map(|_| tensor(&[b, s, d])).collect();
    state.extend([tensor(&[b]), Buffer::from_slice(&[2], &[-1i32, 6])]);
    state
}

/// Numbers for the sample `id`, the same in every batch.
fn per_sample(dtype: DType, ids: &[i32], [_, s, d]: [usize; 3], site: u32) -> Buffer {
    let mut all = vec![0.0; ids.len() * s * d];
    for (one, &id) in all.chunks_mut(s * d).zip(ids) {
        Stream::new(1, site).sample(id as u32).fill_normal(0, one, |x| f64::from(x as f32));
    }
    Buffer::from_f64(dtype, &[ids.len(), s, d], &all)
}

const ADAMW: Rule = Rule::AdamW(adamw::Rule { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 });
const NATURAL: Rule = Rule::Natural { beta: 0.6 };

/// A fast loop over the given samples, `d_z` of every step given; returns the state after each step.
fn learn(rule: Rule, dtype: DType, ids: &[i32], noise: Noise, is_given: bool) -> Vec<Vec<Buffer>> {
    let sizes = [ids.len(), SIZES[1], SIZES[2]];
    let samples = Buffer::from_slice(&[ids.len()], ids);
    let rates: Vec<_> = (0..STEPS).map(|t| f64::from(0.3f32 / (1 + t) as f32)).collect();
    let rates = Buffer::from_f64(dtype, &[STEPS], &rates);
    let table: Vec<_> = (0..STEPS as u32).flat_map(|t| per_sample(dtype, ids, sizes, 50 + t).to_f64()).collect();
    let table = Buffer::from_f64(dtype, &[STEPS, sizes[0], sizes[1], sizes[2]], &table);
    let given = if is_given { &[&table][..] } else { &[] };
    let mut state = blank(dtype, sizes);
    apply(&LatentInit { noise, logvar: -1.5, logvar_std: 0.25 }, &[&[&samples][..], given].concat(), &mut state);
    let mut history = vec![state.clone()];
    for t in 0..STEPS as u32 {
        let d_z = per_sample(dtype, ids, sizes, t);
        apply(&LatentStep { noise, rule }, &[&[&d_z, &rates, &samples][..], given].concat(), &mut state);
        history.push(state.clone());
    }
    history
}

const IDS: [i32; 3] = [4, 9, 2];

/// The formulas of `torch.optim.AdamW`, one number at a time, from the state before step `t` (counted from 0).
fn expected_step(before: &[Buffer], d_z: &Buffer, t: usize) -> [Vec<f64>; 6] {
    let old: Vec<_> = before[..7].iter().map(Buffer::to_f64).collect();
    let [mu, logvar, m_mu, v_mu, m_logvar, v_logvar, eps] = &old[..] else { unreachable!() };
    let rate = f64::from(0.3f32 / (1 + t) as f32);
    let adamw = |p: f64, m: f64, v: f64, g: f64| {
        let p = p * (1.0 - rate * 0.01);
        let (m, v) = (m + 0.1 * (g - m), 0.999 * v + 0.001 * g * g);
        let (bias1, bias2) = (1.0 - 0.9f64.powi(t as i32 + 1), 1.0 - 0.999f64.powi(t as i32 + 1));
        [p - rate / bias1 * m / (v.sqrt() / bias2.sqrt() + 1e-8), m, v]
    };
    let mut new = [(); 6].map(|()| vec![]);
    for (i, d_z) in d_z.to_f64().into_iter().enumerate() {
        let g_logvar = 0.5 * (d_z * eps[i] * (0.5 * logvar[i]).exp() + logvar[i].exp() - 1.0);
        let [p, m, v] = adamw(mu[i], m_mu[i], v_mu[i], d_z + mu[i]);
        let [q, n, w] = adamw(logvar[i], m_logvar[i], v_logvar[i], g_logvar);
        new.iter_mut().zip([p, q, m, v, n, w]).for_each(|(list, x)| list.push(x));
    }
    new
}

/// Loops with every kind of noise: `matches` checks the state after each step, counted from 0. This function checks
/// what all rules have in common.
fn check_steps(rule: Rule, mut matches: impl FnMut(&[Vec<Buffer>], usize)) {
    for is_given in [false, true] {
        for renewal in [Renewal::Fresh, Renewal::Antithetic, Renewal::Fixed] {
            let history = learn(rule, DType::F64, &IDS, noise(renewal), is_given);
            for t in 0..STEPS {
                matches(&history, t);
                let (before, after) = (&history[t], &history[t + 1]);
                let kl = forward(&GaussianKl, &[&before[0], &before[1]]);
                assert_eq!(after[8].as_bytes(), kl[0].as_bytes(), "the KL that GaussianKl gives");
                assert_eq!(after[9].as_slice::<i32>(), [t as i32 + 1, 6]);
            }
            for state in &history {
                let [mu, logvar, eps, z] = [0, 1, 6, 7].map(|i| state[i].to_f64());
                let expected: Vec<_> = (0..z.len()).map(|i| mu[i] + logvar[i].exp().sqrt() * eps[i]).collect();
                assert!(distance(&z, &expected) < 1e-13);
            }
        }
    }
}

#[test]
fn a_step_matches_the_formulas() {
    check_steps(ADAMW, |history, t| {
        let expected = expected_step(&history[t], &per_sample(DType::F64, &IDS, SIZES, t as u32), t);
        for (i, expected) in expected.iter().enumerate() {
            assert!(distance(&history[t + 1][i].to_f64(), expected) < 1e-13, "state {i} after step {t}");
        }
    });
}

/// Compares the recursion with explicit weighted means over all steps so far, the curvature's with two more steps that
/// showed none, and the precision and the mean from them.
#[test]
fn a_natural_step_matches_the_formulas() {
    // The weight of a value by its age, from 0, and its number, from 1.
    let weighted = |values: &[f64], weight: fn(i32, f64) -> f64| {
        let n = values.len();
        let weights: Vec<f64> = (0..n).map(|i| weight((n - 1 - i) as i32, (i + 1) as f64)).collect();
        let sum: f64 = values.iter().zip(&weights).map(|(x, w)| x * w).sum();
        sum / weights.iter().sum::<f64>()
    };
    let gradients: Vec<Vec<f64>> = (0..STEPS as u32).map(|t| per_sample(DType::F64, &IDS, SIZES, t).to_f64()).collect();
    let (mut flat, mut sharp) = (0, 0);
    check_steps(NATURAL, |history, t| {
        let number = |step: usize, state: usize, i: usize| history[step][state].as_slice::<f64>()[i];
        let rate = f64::from(0.3f32 / (1 + t) as f32);
        for i in 0..gradients[0].len() {
            let past: Vec<f64> = (0..=t).map(|s| gradients[s][i]).collect();
            let curvature = |s: usize| past[s] * number(s, 6, i) / number(s, 1, i).exp().sqrt();
            let curvatures: Vec<f64> = [0.0, 0.0].into_iter().chain((0..=t).map(curvature)).collect();
            let precision = 1.0 + weighted(&curvatures, |_, number| number).max(0.0);
            *(if precision > 1.0 { &mut sharp } else { &mut flat }) += 1;
            let before = number(t, 0, i);
            let mu = before - rate * (weighted(&past, |age, _| 0.6f64.powi(age)) + before) / precision;
            assert!((number(t + 1, 0, i) - mu).abs() < 1e-13 * mu.abs().max(1.0), "μ after step {t}");
            assert!((number(t + 1, 1, i).exp() * precision - 1.0).abs() < 1e-13, "σ² after step {t}");
            assert!([4, 5].iter().all(|&moment| number(t + 1, moment, i) == 0.0), "no moments of λ");
        }
    });
    assert!(flat > 100 && sharp > 100, "both sides of the curvature's limit: {flat} and {sharp}");
}

/// For −log p = ½ a (z − b)² the posterior has precision 1 + a and mean a b / (1 + a). Every number of the latents is one
/// trial; the means over trials and late steps come close to that.
#[test]
fn the_natural_gradient_rests_at_the_true_posterior() {
    const STEPS: usize = 200;
    let (sizes, samples) = ([1, 8, 64], Buffer::from_slice(&[1], &[3i32]));
    let rates: Vec<f64> = (0..STEPS).map(|t| 0.3 * (1.0 - t as f64 / STEPS as f64) + 0.01).collect();
    let rates = Buffer::from_f64(DType::F64, &[STEPS], &rates);
    for (a, b) in [(0.2, 1.0), (1.0, -2.0), (5.0, 0.7)] {
        let mut state = blank(DType::F64, sizes);
        let noise = noise(Renewal::Antithetic);
        apply(&LatentInit { noise, logvar: 0.0, logvar_std: 0.0 }, &[&samples], &mut state);
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let (mut precision, mut mu) = (vec![], vec![]);
        for t in 0..STEPS {
            let d_z: Vec<f64> = state[7].to_f64().iter().map(|z| a * (z - b)).collect();
            let d_z = Buffer::from_f64(DType::F64, &sizes, &d_z);
            apply(&LatentStep { noise, rule: NATURAL }, &[&d_z, &rates, &samples], &mut state);
            if t >= STEPS / 2 {
                precision.push(mean(&state[1].to_f64().iter().map(|l| (-l).exp()).collect::<Vec<_>>()));
                mu.push(mean(&state[0].to_f64()));
            }
        }
        let relative = |got: &[f64], expected: f64| (mean(got) / expected - 1.0).abs();
        let errors = [relative(&precision, 1.0 + a), relative(&mu, a * b / (1.0 + a))];
        assert!(errors.iter().all(|&error| error < 0.03), "a = {a}, b = {b}: precision and mean are off by {errors:?}");
    }
}

/// A number without curvature, whose gradient is noise alone: the figures in the documentation of [`Rule::Natural`].
#[test]
fn noise_alone_costs_little_kl() {
    let (sizes, samples) = ([1, 64, 64], Buffer::from_slice(&[1], &[3i32]));
    let noise = noise(Renewal::Antithetic);
    for (steps, most) in [(8, 0.07), (16, 0.05), (64, 0.03)] {
        let rates: Vec<f64> = (0..steps).map(|t| 0.3 * (1.0 - t as f64 / steps as f64) + 0.05).collect();
        let rates = Buffer::from_f64(DType::F64, &[steps], &rates);
        for deviation in [0.3, 1.0] {
            let mut state = blank(DType::F64, sizes);
            apply(&LatentInit { noise, logvar: 0.0, logvar_std: 0.0 }, &[&samples], &mut state);
            for t in 0..steps as u32 {
                let d_z = per_sample(DType::F64, &[3], sizes, t).to_f64();
                let d_z: Vec<f64> = d_z.iter().map(|x| deviation * x).collect();
                let d_z = Buffer::from_f64(DType::F64, &sizes, &d_z);
                apply(&LatentStep { noise, rule: NATURAL }, &[&d_z, &rates, &samples], &mut state);
            }
            let kl = forward(&GaussianKl, &[&state[0], &state[1]])[0].to_f64()[0];
            let relative = kl / state[0].len() as f64 / (deviation * deviation);
            assert!((0.5 * most..most).contains(&relative), "T = {steps}, deviation {deviation}: {relative}");
        }
    }
}

#[test]
fn a_gradient_that_is_no_number_is_not_hidden() {
    let samples = Buffer::from_slice(&[1], &[0i32]);
    let rates = Buffer::from_f64(DType::F32, &[1], &[0.5]);
    let mut state = blank(DType::F32, [1, 1, 3]);
    apply(&LatentInit { noise: FRESH, logvar: 0.0, logvar_std: 0.0 }, &[&samples], &mut state);
    let d_z = Buffer::from_f64(DType::F32, &[1, 1, 3], &[1.0, f64::NAN, 1.0]);
    apply(&LatentStep { noise: FRESH, rule: NATURAL }, &[&d_z, &rates, &samples], &mut state);
    let z = state[7].to_f64();
    assert!(z[0].is_finite() && z[1].is_nan() && z[2].is_finite(), "{z:?}");
}

#[test]
fn noise_is_what_was_asked_for() {
    use Renewal::{Antithetic, Fixed, Fresh};
    let noise_of = |renewal, is_given| {
        let history = learn(ADAMW, DType::F64, &IDS, noise(renewal), is_given);
        history.iter().map(|state| state[6].to_f64()).collect::<Vec<_>>()
    };
    let minus = |noise: &[f64]| noise.iter().map(|x| -x).collect::<Vec<_>>();
    let fresh = noise_of(Fresh, false);
    for (t, got) in fresh.iter().enumerate() {
        let stream = Stream::new(17, FAST_STEP + t as u32).sample(9).step(6);
        let size = SIZES[1] * SIZES[2];
        assert!((0..size).all(|j| got[size + j] == stream.normal(j as u32)), "the second sample's noise of step {t}");
    }
    let fixed = noise_of(Fixed, false);
    assert!(fixed.iter().all(|eps| *eps == fresh[0]));
    let (first, second) = (&fresh[0], &fresh[1]);
    assert_eq!(
        noise_of(Antithetic, false),
        [first, &minus(first), second, &minus(second), &fresh[2]].map(Clone::clone)
    );

    let given = |t: u32| per_sample(DType::F64, &IDS, SIZES, 50 + t).to_f64();
    let table = noise_of(Fresh, true);
    assert_eq!(table, [given(0), given(1), given(2), given(3), given(3)]);
    let table = noise_of(Fixed, true);
    assert!(table.iter().all(|eps| *eps == given(0)));
    let table = noise_of(Antithetic, true);
    assert_eq!(table, [given(0), minus(&given(0)), given(1), minus(&given(1)), given(2)]);
}

#[test]
fn the_start_is_as_configured() {
    let sizes = [2, 40, 50];
    let mut state = blank(DType::F64, sizes);
    let samples = Buffer::from_slice(&[2], &[0i32, 1]);
    let init = LatentInit { noise: FRESH, logvar: -5.0, logvar_std: 0.1 };
    apply(&init, &[&samples], &mut state);
    for zeros in [0, 2, 3, 4, 5, 8] {
        assert!(state[zeros].to_f64().iter().all(|&x| x == 0.0), "state {zeros}");
    }
    let moments = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64).sqrt())
    };
    let (logvar, eps) = (state[1].to_f64(), state[6].to_f64());
    let (mean, std) = moments(&logvar);
    assert!((mean + 5.0).abs() < 0.01 && (std - 0.1).abs() < 0.01, "{mean} {std}");
    let (mean, std) = moments(&eps);
    assert!(mean.abs() < 0.1 && (std - 1.0).abs() < 0.1, "{mean} {std}");
    let correlation: f64 = logvar.iter().zip(&eps).map(|(l, e)| (l + 5.0) * e).sum::<f64>() / logvar.len() as f64;
    assert!(correlation.abs() < 0.01, "the streams are correlated: {correlation}");
    assert_eq!(state[9].as_slice::<i32>(), [0, 6]);
}

/// f32 is close to f64 and has the same bits on every machine, and a sample does not depend on its batch.
#[test]
fn steps_depend_on_nothing_else() {
    for (rule, renewal) in [(ADAMW, Renewal::Fresh), (NATURAL, Renewal::Fresh), (NATURAL, Renewal::Antithetic)] {
        let last = |dtype, ids: &[i32]| learn(rule, dtype, ids, noise(renewal), false).pop().unwrap();
        let together = same_bits(&format!("{rule:?}"), || last(DType::F32, &IDS));
        for (i, (single, double)) in together.iter().zip(&last(DType::F64, &IDS)).enumerate() {
            assert!(distance(&single.to_f64(), &double.to_f64()) < 1e-5, "state {i}");
        }
        for (b, &id) in IDS.iter().enumerate() {
            for (i, (together, alone)) in together.iter().zip(&last(DType::F32, &[id])).enumerate().take(9) {
                let size = alone.as_bytes().len();
                assert!(together.as_bytes()[b * size..][..size] == *alone.as_bytes(), "state {i} of sample {id}");
            }
        }
        same_bits("a draw", || draw(DType::F32, &together, 3));
    }
}

fn draw(dtype: DType, state: &[Buffer], number: i32) -> Vec<Buffer> {
    let mut drawn = blank(dtype, SIZES).split_off(6);
    drawn.truncate(3);
    let (samples, number) = (Buffer::from_slice(&[3], &IDS), Buffer::from_slice(&[1], &[number]));
    apply(&LatentDraw { seed: 17 }, &[&state[0], &state[1], &samples, &number], &mut drawn);
    drawn
}

#[test]
fn draws_are_independent_and_know_their_density() {
    let history = learn(ADAMW, DType::F64, &IDS, FRESH, false);
    let state = history.last().unwrap();
    let [mu, logvar] = [0, 1].map(|i| state[i].to_f64());
    let (size, tau) = (SIZES[1] * SIZES[2], std::f64::consts::TAU);
    let log_normal = |x: f64, mean: f64, var: f64| -0.5 * ((x - mean).powi(2) / var + (tau * var).ln());
    let mut mean = [0.0; 3];
    for number in 0..64 {
        let drawn = draw(DType::F64, state, number);
        assert!(history.iter().all(|state| state[6].to_f64()[0] != drawn[0].to_f64()[0]), "draw {number}");
        let z = drawn[1].to_f64();
        for b in 0..3 {
            let sum = |f: &dyn Fn(usize) -> f64| (b * size..(b + 1) * size).map(f).sum::<f64>();
            let ratio = sum(&|i| log_normal(z[i], mu[i], logvar[i].exp()) - log_normal(z[i], 0.0, 1.0));
            let got = drawn[2].to_f64()[b];
            assert!((got - ratio).abs() < 1e-10 * ratio.abs().max(1.0), "{got} {ratio}");
            mean[b] += got / 64.0;
        }
    }
    let kl = forward(&GaussianKl, &[&state[0], &state[1]])[0].to_f64();
    assert!(distance(&mean, &kl) < 0.1, "{mean:?} {kl:?}");
}
