use super::*;
use crate::diffusion::estimate::in_orders;
use crate::diffusion::masks::Masks;

const SCHEDULES: [Schedule; 3] = [Schedule::Linear, Schedule::Cosine, Schedule::Poly(2.0)];

/// Times of an integral.
const NODES: u32 = 400;

/// A text of three tokens after one that is seen.
fn short() -> Text {
    text(9, &[2, 0, 1, 1], 1)
}

#[track_caller]
fn within_errors(value: Value, want: f64, most: f64) {
    let error = value.noise.sqrt();
    assert!((value.nats - want).abs() < 4.0 * error && error < most, "{value:?}, exactly {want}");
}

#[test]
fn draws_are_unbiased_whatever_the_network_is_told() {
    let text = short();
    for schedule in SCHEDULES {
        for told in [false, true] {
            let mut table = Table { told, ..Table::new(3, 4) };
            let estimator = Estimator::new(schedule, 2, 40, 40).unwrap();
            let estimate = &estimator.elbo(&mut table, std::slice::from_ref(&text)).unwrap()[0];
            for cost in [Cost::LogP, Cost::ScoreEntropy] {
                let want = integral(&mut table, &text, schedule, cost, NODES).unwrap();
                within_errors(estimate.value(cost), want, 0.04 * want);
            }
            if !told {
                let want = integral(&mut table, &text, schedule, Cost::LogP, NODES).unwrap();
                close(Exact::of(&mut table, &text).unwrap().nelbo, want, 1e-5);
            }
        }
    }
}

#[test]
fn the_error_estimate_is_the_spread_between_seeds() {
    let (text, mut table) = (short(), Table { spread: 2.0, ..Table::new(3, 4) });
    // With one draw in each, replicates must not even share their number of masks.
    let values = (0..400).map(|seed| {
        let estimator = Estimator::new(Schedule::Linear, seed, 8, 1).unwrap();
        estimator.elbo(&mut table, std::slice::from_ref(&text)).unwrap()[0].value(Cost::LogP)
    });
    let values: Vec<_> = values.collect();
    let mean = values.iter().map(|value| value.nats).sum::<f64>() / 400.0;
    let spread = values.iter().map(|value| (value.nats - mean).powi(2)).sum::<f64>() / 399.0;
    let noise = values.iter().map(|value| value.noise).sum::<f64>() / 400.0;
    assert!((0.75..1.33).contains(&(noise / spread)), "{noise} {spread}");
}

#[test]
fn equally_likely_tokens_cost_log_v_at_every_draw() {
    let mut table = Table { spread: 0.0, ..Table::new(7, 9) };
    let text = text(4, &[1, 2, 3, 4, 5, 6, 0, 1, 2], 1);
    let want = 8.0 * 7f64.ln();
    for schedule in SCHEDULES {
        let estimator = Estimator::new(schedule, 1, 2, 8).unwrap();
        let estimate = &estimator.elbo(&mut table, std::slice::from_ref(&text)).unwrap()[0];
        estimate.nll.iter().for_each(|&nats| close(nats, want, 1e-14));
        assert!(estimate.value(Cost::LogP).noise < 1e-20);
        // Logits of mean 0 start at Z = 1, so SEDD pays nothing on top.
        assert!(estimate.price.iter().all(|price| price.abs() < 1e-12) && estimate.log_z.abs() < 1e-12);
    }
    let exact = Exact::of(&mut table, &text).unwrap();
    close(exact.nelbo, want, 1e-14);
    close(exact.nll, want, 1e-14);
    let orders = Estimator::new(Schedule::Linear, 1, 2, 2).unwrap().orders(&mut table, std::slice::from_ref(&text));
    orders.unwrap()[0].iter().for_each(|&nats| close(nats, want, 1e-14));
    let estimator = Estimator::new(Schedule::Linear, 1, 10, 100).unwrap();
    let value = estimator.paper(&mut table, std::slice::from_ref(&text)).unwrap()[0].value(Cost::LogP);
    within_errors(value, (1.0 - 1e-3) * want, 0.1 * want);
}

/// Given any t, the expected weight of a position is 1 − ε; draws alone could not tell it from 1.
#[test]
fn the_papers_leave_out_a_thousandth() {
    for stratum in [0.0, 1e-3, 0.3, 0.999] {
        let masks = |uniform| Masks::of_the_papers(stratum, &[(0, uniform)]);
        let Masks { t, weight, .. } = masks(0.5);
        assert!((1e-3..1.0).contains(&t));
        let expected = |uniform| masks(uniform).at.len() as f64 * weight;
        let chance = (1.0 - 1e-3) / weight;
        assert_eq!([expected(chance * (1.0 - 1e-12)), expected(chance * (1.0 + 1e-12))], [weight, 0.0], "{t}");
    }
}

#[test]
fn all_orders_give_the_probability_and_it_is_one() {
    let mut table = Table { spread: 1.5, ..Table::new(3, 4) };
    let mut total = 0.0;
    for tokens in all_texts(3, 3) {
        let text = text(0, &tokens, 0);
        let exact = Exact::of(&mut table, &text).unwrap();
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]].map(|order| order.to_vec());
        let costs = in_orders(&mut table, &text, &orders).unwrap();
        close(costs.iter().sum::<f64>() / 6.0, exact.nelbo, 1e-13);
        close(-(costs.iter().map(|cost| (-cost).exp()).sum::<f64>() / 6.0).ln(), exact.nll, 1e-13);
        assert!(exact.nll < exact.nelbo);
        total += (-exact.nll).exp();
    }
    close(total, 1.0, 1e-13);
    let text = short();
    let orders = Estimator::new(Schedule::Linear, 3, 20, 20).unwrap().orders(&mut table, std::slice::from_ref(&text));
    let (nats, noise) = crate::evaluate::log_mean(&orders.unwrap()[0]);
    within_errors(Value { nats, noise }, Exact::of(&mut table, &text).unwrap().nll, 0.1);
}

#[test]
fn a_text_costs_the_same_beside_any_others() {
    let texts: Vec<_> =
        (0..5).map(|id| text(id, &[2, 0, 1, 1, 2, 0][..2 + id as usize % 5], id as usize % 2)).collect();
    let estimator = Estimator::new(Schedule::Cosine, 2, 2, 3).unwrap();
    let mut table = Table { told: true, ..Table::new(3, 6) };
    let all = estimator.elbo(&mut table, &texts).unwrap();
    assert_eq!(table.calls, 6, "30 rows in calls of 5");
    let [papers, orders] = [estimator.paper(&mut table, &texts).unwrap(), all.clone()];
    assert_ne!(papers, orders);
    let orders = estimator.orders(&mut table, &texts).unwrap();
    for (i, text) in texts.iter().enumerate() {
        let mut other = Table { told: true, shape: Shape { rows: 2, positions: 8, vocab: 3 }, ..Table::new(3, 8) };
        let alone = std::slice::from_ref(text);
        // A text none of whose draws has a mask has no mean log Z.
        let same = |a: &Estimate, b: &Estimate| format!("{a:?}") == format!("{b:?}");
        assert!(same(&estimator.elbo(&mut other, alone).unwrap()[0], &all[i]), "text {i}");
        assert!(same(&estimator.paper(&mut other, alone).unwrap()[0], &papers[i]), "text {i}");
        assert_eq!(estimator.orders(&mut other, alone).unwrap()[0], orders[i]);
    }
}

#[test]
fn scores_that_sum_to_one_pay_nothing_for_it() {
    for shift in [-1.0, 0.0, 0.5] {
        let z = TokenCost::of(&[1.0 + shift, 2.0 + shift, -1.0 + shift], 1);
        let p = 2f64.exp() / (1f64.exp() + 2f64.exp() + (-1f64).exp());
        close(z.nll, -p.ln(), 1e-14);
        let sum = (z.log_z).exp();
        close(z.price(), sum - 1.0 - sum.ln(), 1e-14);
        assert!(z.price() > 0.0 && Cost::ScoreEntropy.of(z) > Cost::LogP.of(z));
        let normal = TokenCost::of(&[1.0, 2.0, -1.0].map(|x| x + shift - z.log_z), 1);
        close(Cost::ScoreEntropy.of(normal), Cost::LogP.of(z), 1e-14);
    }
    // A thousand is no overflow, and no cancellation.
    close(TokenCost::of(&[1000.0, 1000.0], 0).nll, 2f64.ln(), 1e-12);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    for (replicates, draws) in [(1, 8), (2, 0), (1 << 16, 1), (2, 1 << 16)] {
        assert!(Estimator::new(Schedule::Linear, 0, replicates, draws).unwrap_err().to_string().contains("at least 2"));
    }
    let estimator = Estimator::new(Schedule::Linear, 0, 2, 1).unwrap();
    let (mut table, long) = (Table::new(3, 65), text(7, &[0; 65], 0));
    let error = estimator.orders(&mut table, std::slice::from_ref(&long)).unwrap_err();
    assert_eq!(error.to_string(), "sample 7 has 65 tokens to score: protocol orders takes at most 64");
    let error = Exact::of(&mut table, &text(7, &[0; 11], 0)).unwrap_err();
    assert_eq!(error.to_string(), "11 tokens to score, must be at most 10 to enumerate all masks");
    let error = estimator.elbo(&mut Table::new(3, 4), &[text(7, &[0; 5], 0)]).unwrap_err();
    assert_eq!(error.to_string(), "sample 7 has 5 tokens, must be at most 4");
}
