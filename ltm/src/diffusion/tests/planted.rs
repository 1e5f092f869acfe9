//! Usual mistakes, planted, and the identities that catch them.

use super::*;

/// The bound on −log p of a text: the sum over m of 1/n and the mean over the sets of m masks of `weight(n, m)` times the costs of
/// the positions `summed(masked)`. Without mistake the weight is n/m, and the masked positions are summed.
fn bound(
    network: &mut dyn Network,
    text: &Text,
    weight: impl Fn(f64, f64) -> f64,
    summed: impl Fn(&[usize]) -> Vec<usize>,
) -> f64 {
    let (n, shape) = (text.tokens.len(), network.shape());
    let sets = (1usize..1 << n).map(|set| (0..n).filter(|i| set >> i & 1 == 1).collect::<Vec<_>>());
    let sets: Vec<_> = sets.collect();
    let value = |masked: &Vec<usize>| {
        let mut seen = Seen::default();
        seen.push(&text.with_masks(masked, shape.mask()), shape.positions, 1.0);
        let asked: Vec<_> = summed(masked).iter().map(|&i| (i, text.tokens[i])).collect();
        let nats: f64 = network.costs(&seen, &asked).unwrap().iter().map(|cost| cost.nll).sum();
        let alike = sets.iter().filter(|set| set.len() == masked.len()).count();
        weight(n as f64, masked.len() as f64) * nats / alike as f64 / n as f64
    };
    sets.iter().map(value).sum()
}

fn right(n: f64, m: f64) -> f64 {
    n / m
}

#[test]
fn a_wrong_weight_is_caught() {
    let text = text(0, &[2, 0, 1], 0);
    for spread in [0.0, 1.0] {
        let mut table = Table { spread, ..Table::new(3, 3) };
        let exact = Exact::of(&mut table, &text).unwrap().nelbo;
        close(bound(&mut table, &text, right, <[usize]>::to_vec), exact, 1e-13);
        let wrong = bound(&mut table, &text, |_, m| m.recip(), <[usize]>::to_vec);
        assert!(wrong < 0.9 * exact, "{wrong} {exact}");
    }
}

#[test]
fn costs_of_unmasked_positions_are_caught() {
    let text = text(0, &[2, 0, 1], 0);
    let mut table = Table { spread: 0.0, ..Table::new(3, 3) };
    let wrong = bound(&mut table, &text, right, |_| vec![0, 1, 2]);
    // Equally likely tokens should cost n log V.
    assert!(wrong > 1.5 * 3.0 * 3f64.ln(), "{wrong}");
}

/// Scores the token after the one that it should score, as an autoregressive model does; round the end.
struct Shifted(Table, Vec<i32>);

impl Network for Shifted {
    fn shape(&self) -> Shape {
        self.0.shape
    }

    fn costs(&mut self, seen: &Seen, asked: &[(usize, i32)]) -> Result<Vec<TokenCost>> {
        let n = self.1.len();
        let next: Vec<_> = asked.iter().map(|&(at, _)| (at, self.1[(at % n + 1) % n])).collect();
        self.0.costs(seen, &next)
    }
}

#[test]
fn shifted_targets_are_caught() {
    let table = || Table { spread: 2.0, ..Table::new(3, 3) };
    let p = |network: &mut dyn Network, tokens: &[i32]| (-Exact::of(network, &text(0, tokens, 0)).unwrap().nll).exp();
    let all = all_texts(3, 3);
    let total: f64 = all.iter().map(|tokens| p(&mut table(), tokens)).sum();
    close(total, 1.0, 1e-13);
    let shifted: f64 = all.iter().map(|tokens| p(&mut Shifted(table(), tokens.clone()), tokens)).sum();
    assert!((shifted - 1.0).abs() > 0.01, "{shifted}");
}

#[test]
fn a_length_that_is_not_paid_is_caught() {
    let mut table = Table::new(3, 3);
    let lengths: Lengths = serde_json::from_str(r#"{"counts": [5, 0, 2]}"#).unwrap();
    let (mut paid, mut unpaid) = (0.0, 0.0);
    for tokens in (1..=3).flat_map(|n| all_texts(3, n)) {
        let text = text(0, &tokens, 0);
        let nll = Exact::of(&mut table, &text).unwrap().nll;
        paid += (-nll - lengths.cost(&text).unwrap()).exp();
        unpaid += (-nll).exp();
    }
    close(paid, 1.0, 1e-13);
    close(unpaid, 3.0, 1e-13);
}
