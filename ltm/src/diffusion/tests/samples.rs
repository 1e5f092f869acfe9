use super::*;
use crate::generate::{Sampler, Writing};
use std::collections::BTreeMap;

const M: i32 = 3;

/// The distribution of finished texts, by following every path of the steps along `grid`.
fn paths(table: &Table, schedule: Schedule, start: &[i32], grid: &[f64]) -> BTreeMap<Vec<i32>, f64> {
    let mut reach = BTreeMap::from([(start.to_vec(), 1.0)]);
    for pair in grid.windows(2) {
        let revealed = schedule.revealed(pair[0], pair[1]);
        let mut after = BTreeMap::new();
        for (text, chance) in reach {
            let mut ways = vec![(text.clone(), chance)];
            for i in (0..text.len()).filter(|&i| text[i] == M) {
                let weights: Vec<_> = table.row(&text, pair[0], i).iter().map(|x| x.exp()).collect();
                let total: f64 = weights.iter().sum();
                let each = |(way, chance): (Vec<i32>, f64)| {
                    let to = |id: i32| {
                        let share = if id == M { 1.0 - revealed } else { revealed * weights[id as usize] / total };
                        let mut way = way.clone();
                        way[i] = id;
                        (way, chance * share)
                    };
                    [0, 1, 2, M].map(to)
                };
                ways = ways.into_iter().flat_map(each).collect();
            }
            ways.into_iter().for_each(|(way, chance)| *after.entry(way).or_insert(0.0) += chance);
        }
        reach = after;
    }
    reach.retain(|_, chance| *chance > 0.0);
    reach
}

/// 4000 samples by `revealer` against their exact distribution: (χ² − its mean)/its standard deviation.
fn deviation(table: &mut Table, revealer: Revealer, start: &[i32], exact: &BTreeMap<Vec<i32>, f64>) -> f64 {
    let sampler = Sampler::new(&Writing::default(), 0).unwrap();
    let masked: Vec<_> = (0..start.len()).filter(|&i| start[i] == M).collect();
    let mut counts: BTreeMap<Vec<i32>, f64> = BTreeMap::new();
    for sample in 0..4000 {
        let mut text = start.to_vec();
        fill(table, &mut text, &revealer.reveals(&masked, sample), &sampler, 3, &mut |_| Ok(())).unwrap();
        *counts.entry(text).or_default() += 1.0;
    }
    close(exact.values().sum(), 1.0, 1e-12);
    assert!(counts.keys().all(|text| exact.contains_key(text)), "{counts:?}");
    let part = |(text, chance): (&Vec<i32>, &f64)| {
        let want = 4000.0 * chance;
        (counts.get(text).copied().unwrap_or(0.0) - want).powi(2) / want
    };
    let freedom = exact.len() as f64 - 1.0;
    (exact.iter().map(part).sum::<f64>() - freedom) / (2.0 * freedom).sqrt()
}

#[test]
fn three_steps_have_the_distribution_of_all_their_paths() {
    for (schedule, grid, start) in [
        (Schedule::Linear, Grid::Uniform, [M, M, M]),
        (Schedule::Cosine, Grid::Cosine, [M, M, M]),
        (Schedule::Poly(2.0), Grid::Uniform, [M, 1, M]),
    ] {
        let mut table = Table { told: true, ..Table::new(3, 3) };
        let revealer = Revealer { schedule, grid, steps: 3, seed: 11 };
        let exact = paths(&table, schedule, &start, &grid.times(3));
        assert_eq!(exact.len(), 3usize.pow(start.iter().filter(|&&id| id == M).count() as u32));
        let apart = deviation(&mut table, revealer, &start, &exact);
        assert!(apart.abs() < 4.0, "{schedule}: {apart}");
        // The test can tell: two steps have another distribution.
        let apart = deviation(&mut table, Revealer { steps: 1, ..revealer }, &start, &exact);
        assert!(apart > 6.0, "{schedule}: {apart}");
    }
}

#[test]
fn one_by_one_has_the_distribution_that_bounds_bound() {
    let mut table = Table { spread: 1.5, ..Table::new(3, 3) };
    let exact = |table: &mut Table, tokens: Vec<i32>| {
        let nll = Exact::of(table, &text(0, &tokens, 0)).unwrap().nll;
        (tokens, (-nll).exp())
    };
    let exact: BTreeMap<_, _> = all_texts(3, 3).into_iter().map(|tokens| exact(&mut table, tokens)).collect();
    let revealer = Revealer { schedule: Schedule::Linear, grid: Grid::Uniform, steps: 0, seed: 5 };
    let apart = deviation(&mut table, revealer, &[M; 3], &exact);
    assert!(apart.abs() < 4.0, "{apart}");
}

#[test]
fn only_masks_change_and_the_network_is_called_when_they_do() {
    let sampler = Sampler::new(&Writing { top_k: 1, ..Writing::default() }, 0).unwrap();
    let start = [M, 2, M, M, 0, M];
    for (steps, most) in [(1, 1), (3, 3), (1000, 4), (0, 4)] {
        let mut table = Table::new(3, 8);
        let revealer = Revealer { schedule: Schedule::Cosine, grid: Grid::Cosine, steps, seed: 2 };
        let reveals = revealer.reveals(&[0, 2, 3, 5], 7);
        assert_eq!(reveals, revealer.reveals(&[0, 2, 3, 5], 7));
        assert_ne!(reveals, Revealer { seed: 3, ..revealer }.reveals(&[0, 2, 3, 5], 7));
        assert_ne!(reveals, revealer.reveals(&[0, 2, 3, 5], 8));
        assert!(reveals.is_sorted_by(|a, b| a.t > b.t) && reveals.iter().all(|reveal| reveal.t <= 1.0));
        let (mut text, mut shown) = (start, vec![start.to_vec()]);
        fill(&mut table, &mut text, &reveals, &sampler, 3, &mut |now| {
            shown.push(now.to_vec());
            Ok(())
        })
        .unwrap();
        assert!(reveals.len() <= most && table.calls == reveals.len() && shown.len() == reveals.len() + 1);
        for (pair, reveal) in shown.windows(2).zip(&reveals) {
            for i in 0..6 {
                if reveal.positions.iter().any(|(at, _)| *at == i) {
                    let row = table.row(&pair[0], reveal.t, i);
                    let likeliest = (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
                    assert_eq!((pair[0][i], pair[1][i]), (M, likeliest as i32));
                } else {
                    assert_eq!(pair[0][i], pair[1][i]);
                }
            }
        }
        assert_eq!((text.as_slice(), text.contains(&M)), (&shown[shown.len() - 1][..], false));
    }
    let stopped = fill(
        &mut Table::new(3, 8),
        &mut start.clone(),
        &Revealer { schedule: Schedule::Linear, grid: Grid::Uniform, steps: 0, seed: 2 }.reveals(&[0], 0),
        &sampler,
        3,
        &mut |_| Err(engine::Error::new("the pipe is closed")),
    );
    assert_eq!(stopped.unwrap_err().to_string(), "the pipe is closed");
}

#[test]
fn one_by_one_tells_the_time_of_the_limit() {
    // The largest of n uniform numbers is n/(n+1) on average, the least 1/(n+1).
    let revealer = Revealer { schedule: Schedule::Poly(2.0), grid: Grid::Uniform, steps: 0, seed: 2 };
    let mut sums = [0.0; 4];
    for sample in 0..2000 {
        let reveals = revealer.reveals(&[0, 2, 3, 5], sample);
        assert!(reveals.iter().all(|reveal| reveal.positions.len() == 1));
        sums.iter_mut().zip(&reveals).for_each(|(sum, reveal)| *sum += revealer.schedule.masked(reveal.t) / 2000.0);
    }
    sums.iter().zip([0.8, 0.6, 0.4, 0.2]).for_each(|(mean, want)| assert!((mean - want).abs() < 0.02, "{sums:?}"));
}

#[test]
fn a_long_text_is_written_window_by_window() {
    let sampler = Sampler::new(&Writing::default(), 0).unwrap();
    let revealer = Revealer { schedule: Schedule::Linear, grid: Grid::Uniform, steps: 0, seed: 2 };
    // A prompt of 2, of more than a window, and one that ends just before the end; 8 positions.
    for (prompt, length, windows) in [(2, 8, vec![0]), (2, 15, vec![0, 4, 7]), (10, 15, vec![6, 7]), (7, 8, vec![0])] {
        let begin: Vec<i32> = (0..prompt).map(|i| i % 2).collect();
        let (mut text, mut last, mut firsts) = (begin.clone(), begin.clone(), Vec::new());
        let mut table = Table::new(3, 8);
        let mut drawn = 0;
        write(&mut table, &mut text, length, revealer, 4, &sampler, 2, &mut |now| {
            drawn += 1;
            let masks = |text: &[i32]| text.iter().filter(|&&id| id == M).count();
            if masks(&last) == 0 {
                firsts.push(now.len().saturating_sub(8));
                last.resize(now.len(), M);
            }
            let changed: Vec<_> = (0..now.len()).filter(|&i| now[i] != last[i]).collect();
            assert!(changed.len() == 1 && last[changed[0]] == M && masks(now) == masks(&last) - 1);
            last = now.to_vec();
            Ok(())
        })
        .unwrap();
        assert_eq!((&text, text.len(), &text[..begin.len()]), (&last, length, &begin[..]));
        assert_eq!((drawn, firsts), (length - begin.len(), windows), "{prompt} of {length}");
        assert!(text.iter().all(|&id| id < 2), "id 2 is no token of the tokenizer: {text:?}");
    }
}

/// SEDD's analytic sampler: the staggered score times the transition, as its code has it, with σ = −log(1 − t).
#[test]
fn the_analytic_sampler_of_normalised_scores_is_this_one() {
    let (t, s) = (0.7f64, 0.3f64);
    let (late, early) = (-(-t).ln_1p(), -(-s).ln_1p());
    let grow = (late - early).exp();
    for shift in [0.0, 0.4] {
        let logits: Vec<f64> = Table::new(3, 3).row(&[M, M, M], t, 0);
        let log_z = TokenCost::of(&logits, 0).log_z;
        // Scores that sum to e^shift of the right sum.
        let scores: Vec<f64> = logits.iter().map(|x| (x - log_z + shift).exp() / 3.0 / late.exp_m1()).collect();
        let reveal: Vec<f64> = scores.iter().map(|score| score * grow * (1.0 - (early - late).exp())).collect();
        close(reveal.iter().sum(), shift.exp() * Schedule::Linear.revealed(t, s), 1e-14);
        for (y, chance) in reveal.iter().enumerate() {
            let p = (-TokenCost::of(&logits, y as i32).nll).exp();
            close(chance / reveal.iter().sum::<f64>(), p, 1e-14);
        }
    }
}
