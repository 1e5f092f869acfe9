use super::*;
use crate::config::Masking;
use crate::diffusion::masks::{Masks, count_of, stratum};
use crate::diffusion::rows::{Row, score};
use crate::safetensors::SafeTensors;

fn file() -> SafeTensors<'static> {
    let bytes = include_bytes!("../../../../tests/fixtures/diffusion_tiny.safetensors");
    SafeTensors::parse(&bytes[..]).expect("a golden file")
}

/// Σ −log p over the masked positions of the toy text for every set of them, shared equally among these: all that bounds
/// without time depend on.
struct Toy(Vec<f64>);

impl Network for Toy {
    fn shape(&self) -> Shape {
        Shape { rows: 7, positions: 6, vocab: 19 }
    }

    fn costs(&mut self, seen: &Seen, asked: &[(usize, i32)]) -> Result<Vec<TokenCost>> {
        let cost = |&(at, _): &(usize, i32)| {
            let row = &seen.tokens[at / 6 * 6..][..6];
            let set: usize = (0..6).filter(|&i| row[i] == 19).map(|i| 1 << i).sum();
            TokenCost { nll: self.0[set] / f64::from(set.count_ones()), log_z: 0.0 }
        };
        Ok(asked.iter().map(cost).collect())
    }
}

fn toy() -> (Toy, Text) {
    let file = file();
    let tokens: Vec<i32> = file.get_i64("toy.tokens").unwrap().iter().map(|&id| id as i32).collect();
    (Toy(file.get_f64("toy.subset_nats").unwrap()), text(0, &tokens, 0))
}

#[test]
fn times_masks_and_weighted_costs_of_a_batch() {
    let file = file();
    let floats = |name: &str| file.get_f64(name).unwrap();
    let flags = |name: &str| file.get_i64(name).unwrap().iter().map(|&x| x == 1).collect::<Vec<_>>();
    let (uniforms, maskable) = (floats("uniforms"), flags("maskable"));
    let (n, shift) = (12, floats("time_shift")[0]);
    for (tag, net, method, schedule) in [
        ("mdlm", "free", MDLM, Schedule::Linear),
        ("sedd", "sigma", SEDD, Schedule::Linear),
        ("md4", "t", MD4, Schedule::Linear),
        ("md4_cosine", "t", MD4, Schedule::Cosine),
        ("md4_poly2", "t", MD4, Schedule::Poly(2.0)),
    ] {
        let of = |what: &str| floats(&format!("{tag}.{what}"));
        let masked = flags(&format!("{tag}.masked"));
        let masker = Masker { schedule, masking: Masking::Bernoulli, seed: 0 };
        let mut total = 0.0;
        for b in 0..4 {
            let of_row = |i: &usize| maskable[b * n + i];
            let row: Vec<_> = (0..n).filter(of_row).map(|i| (i, uniforms[b * n + i])).collect();
            let Masks { at, t, weight } = masker.masks(stratum(shift, b, 4), &row);
            assert_eq!(t, floats("times")[b]);
            if let Some(tau) = method.told.tau(t) {
                close(tau, floats(&format!("{net}.tau"))[b], 1e-14);
            }
            assert!((0..n).all(|i| at.contains(&i) == masked[b * n + i]), "{tag}: {at:?}");
            // The file has the network's numbers at the masks of the linear schedule; masks of others differ.
            if schedule == Schedule::Linear {
                let [log_p, log_z] = ["log_probs", "log_z"].map(|what| floats(&format!("{net}.{what}")));
                let cost = |i: usize| method.cost.of(TokenCost { nll: -log_p[b * n + i], log_z: log_z[b * n + i] });
                let logits = floats(&format!("{net}.logits"));
                let tokens = file.get_i64("tokens").unwrap();
                for &i in &at {
                    let at = b * n + i;
                    let ours = TokenCost::of(&logits[at * 19..][..19], tokens[at] as i32);
                    close(ours.nll, -log_p[at], 1e-13);
                    close(ours.log_z, log_z[at], 1e-13);
                    close(weight * cost(i), of("positions")[at], 1e-12);
                }
                let nats: f64 = at.iter().map(|&i| weight * cost(i)).sum();
                close(nats, of("nats")[b], 1e-12);
                total += nats;
            } else if t == 1.0 {
                // Wholly masked under any schedule, and told the same: only the weight differs.
                let linear = floats("md4.positions");
                at.iter()
                    .for_each(|&i| assert!((weight * linear[b * n + i] - of("positions")[b * n + i]).abs() < 1e-12));
            }
        }
        if schedule == Schedule::Linear {
            let maskable = maskable.iter().filter(|is| **is).count();
            close(total / maskable as f64, of("loss")[0], 1e-12);
        }
    }
}

#[test]
fn draws_by_the_number_of_masks() {
    let (file, (mut toy, text)) = (file(), toy());
    let [uniforms, shift, times, want] =
        ["uniforms", "shift", "t", "mdlm"].map(|name| file.get_f64(&format!("count.{name}")).unwrap());
    let [counts, masked] = ["m", "masked"].map(|name| file.get_i64(&format!("count.{name}")).unwrap());
    let draw = |k: usize| {
        let uniforms: Vec<_> = uniforms[6 * k..][..6].iter().copied().enumerate().collect();
        let m = count_of(6, stratum(shift[0], k, 8));
        assert_eq!(m as i64, counts[k]);
        Masks::by_count(m, Schedule::Linear, &uniforms)
    };
    let draws: Vec<_> = (0..8).map(draw).collect();
    for (k, masks) in draws.iter().enumerate() {
        assert!((0..6).all(|i| masks.at.contains(&i) == (masked[6 * k + i] == 1)));
        assert_eq!(masks.t, times[k]);
    }
    let rows = draws
        .iter()
        .enumerate()
        .map(|(k, Masks { at, t, .. })| (k, Row { text: &text, masked: at.clone(), scored: at.len(), t: *t }));
    let mut seen = 0;
    score(&mut toy, rows, |k, costs| {
        close(draws[k].weight * costs.iter().map(|cost| cost.nll).sum::<f64>(), want[k], 1e-12);
        seen += 1;
    })
    .unwrap();
    assert_eq!(seen, 8);
}

#[test]
fn the_toy_text_exactly_and_by_draws() {
    let (file, (mut toy, text)) = (file(), toy());
    let number = |name: &str| file.get_f64(name).unwrap();
    let exact = Exact::of(&mut toy, &text).unwrap();
    close(exact.nelbo, number("toy.nelbo")[0], 1e-12);
    let estimator = Estimator::new(Schedule::Linear, 5, 40, 64).unwrap();
    let value = estimator.elbo(&mut toy, std::slice::from_ref(&text)).unwrap()[0].value(Cost::LogP);
    let apart = (value.nats - exact.nelbo) / value.noise.sqrt();
    assert!(apart.abs() < 4.0 && value.noise.sqrt() < 0.01 * exact.nelbo, "{value:?} {exact:?}");

    // The bound of T equal steps: in step i each position is a mask with probability i/T, and its cost has weight 1/i.
    for (steps, want) in [1, 2, 4, 16, 64].into_iter().zip(number("toy.nelbo_steps")) {
        let at = |i: usize| {
            let t = i as f64 / steps as f64;
            let chance = |set: usize| t.powi(set.count_ones() as i32) * (1.0 - t).powi(6 - set.count_ones() as i32);
            (0..64).map(|set| chance(set) * toy.0[set]).sum::<f64>() / i as f64
        };
        close((1..=steps).map(at).sum(), want, 1e-12);
    }
}

#[test]
fn generation_reveals_the_same_positions_in_the_same_steps() {
    let file = file();
    for (name, grid) in [("sample", Grid::Uniform), ("infill", Grid::Cosine)] {
        let floats = |what: &str| file.get_f64(&format!("{name}.{what}")).unwrap();
        let [trace, calls] = ["trace", "calls"].map(|what| file.get_i64(&format!("{name}.{what}")).unwrap());
        let (times, uniforms) = (floats("grid"), floats("uniforms"));
        grid.times(20).iter().zip(&times).for_each(|(t, want)| close(*t, *want, 1e-15));
        for b in 0..2 {
            let masks = |step: usize| (0..12).filter(|i| trace[(step * 2 + b) * 12 + i] == 19).collect::<Vec<_>>();
            let given = |step: usize, i: usize| [0, 1].map(|k| uniforms[((step * 2 + b) * 12 + i) * 2 + k]);
            let reveals = by_grid(&masks(0), Schedule::Linear, &times, given);
            assert_eq!(reveals.len() as i64, calls[b]);
            for step in 0..20 {
                let now: Vec<_> = masks(step).into_iter().filter(|i| !masks(step + 1).contains(i)).collect();
                let with_uniforms: Vec<_> = now.into_iter().map(|i| (i, given(step, i)[1])).collect();
                let ours = reveals.iter().find(|reveal| reveal.t == times[step]);
                assert_eq!(ours.map_or(&[][..], |reveal| &reveal.positions), with_uniforms, "{name}, step {step}");
            }
        }
    }
}
