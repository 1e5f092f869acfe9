use super::*;
use crate::config::Chunking::Documents;
use crate::config::Masking;
use crate::data::{Batch, Sequences, Tail, memory};

const SCHEDULES: [Schedule; 4] = [Schedule::Linear, Schedule::Cosine, Schedule::Poly(2.0), Schedule::Poly(0.5)];

#[test]
fn schedules_run_from_text_to_masks_and_back() {
    for schedule in SCHEDULES {
        assert_eq!([0.0, 1.0].map(|t| schedule.masked(t)), [0.0, 1.0], "{schedule}");
        for t in [1e-6, 0.1, 0.5, 0.9] {
            let (a, h) = (schedule.masked(t), 1e-4 * t);
            close(schedule.time(a), t, 1e-12);
            let slope = (schedule.masked(t + h) - schedule.masked(t - h)) / (2.0 * h);
            close(schedule.weight(t) * a / slope, 1.0, 1e-7);
            // Survives two steps as one.
            let stays = |t, s| 1.0 - schedule.revealed(t, s);
            close(stays(t, t / 2.0) * stays(t / 2.0, t / 3.0), stays(t, t / 3.0), 1e-12);
        }
        assert_eq!(schedule.revealed(0.3, 0.0), 1.0);
        assert!(schedule.weight(1.0).is_finite());
        let text = serde_json::to_string(&schedule).unwrap();
        assert_eq!((&text, serde_json::from_str(&text).unwrap()), (&format!("\"{schedule}\""), schedule));
    }
    for wrong in ["poly", "poly0", "poly-1", "polyNaN", "polyinf", "Linear", ""] {
        let error = wrong.parse::<Schedule>().unwrap_err().to_string();
        assert!(error.contains(&format!("{wrong:?}: choose linear, cosine")), "{error}");
    }
}

#[test]
fn the_network_is_told_finite_times() {
    assert_eq!(Told::Nothing.tau(0.5), None);
    assert_eq!([0.0, 1.0].map(|t| Told::Time.tau(t).unwrap()), [0.0, 1000.0]);
    assert_eq!(Told::Sigma.tau(0.0).unwrap(), 0.0);
    close(Told::Sigma.tau(1.0).unwrap(), 1000f64.ln(), 1e-12);
    assert_eq!(METHODS.map(|method| method.name), ["mdlm", "sedd", "md4"]);
    assert_eq!(METHODS.map(|method| method.told), [Told::Nothing, Told::Sigma, Told::Time]);
}

#[test]
fn texts_of_a_batch_end_before_their_padding() {
    // Documents of 3, 1 and 2 tokens; 257 ends one, 256 begins one.
    let data = memory(&[1, 2, 3, 257, 4, 257, 5, 6, 257]);
    let source = Sequences::new(vec![data], Documents, 5, Tail::Pad).unwrap();
    let mut batch = Batch::new(4, 5);
    batch.fill(&source, [Some(0), Some(2), None, Some(1)]).unwrap();
    let texts = Text::of(&batch, true);
    let tokens: Vec<_> = texts.iter().map(|text| text.tokens.clone()).collect();
    assert_eq!(tokens, [vec![256, 1, 2, 3, 257], vec![256, 5, 6, 257], vec![256, 4, 257]]);
    assert_eq!(texts.iter().map(Text::maskable).collect::<Vec<_>>(), [1..5, 1..4, 1..3]);
    assert_eq!(texts.iter().map(|text| text.sample.id).collect::<Vec<_>>(), [0, 2, 1]);
    assert_eq!(Text::of(&batch, false)[2], Text { tokens: vec![4, 257], context: 0, ..texts[2].clone() });
    // What stands before the first scored target is given.
    batch.targets[..2].fill(-1);
    batch.samples[0].scored = 2;
    let prompted = &Text::of(&batch, true)[0];
    assert_eq!((&prompted.tokens, prompted.maskable()), (&texts[0].tokens, 3..5));
    let half = Text { sample: SampleInfo { nats: Some(3.0), ..texts[1].sample }, ..texts[1].clone() }.later_half();
    let SampleInfo { scored, bytes, nats, .. } = half.sample;
    assert_eq!((half.maskable(), scored, bytes, nats), (2..4, 2, 1, None));
    assert_eq!(half.tokens, texts[1].tokens);

    let lengths = Lengths::of(&source, 5).unwrap();
    // One document each of 4, 2 and 3 targets.
    assert_eq!(lengths.probabilities(), [0.125, 0.25, 0.25, 0.25, 0.125]);
    close(lengths.cost(&texts[0]).unwrap(), -0.25f64.ln(), 1e-15);
    // Longer than two tokens, longer than one.
    close(lengths.cost(&texts[0].later_half()).unwrap(), (0.625f64 / 0.25).ln(), 1e-15);
    close(lengths.cost(&half).unwrap(), (0.875f64 / 0.25).ln(), 1e-15);
    let error = lengths.cost(&text(3, &[0; 7], 1)).unwrap_err().to_string();
    assert_eq!(error, "sample 3 has 6 tokens, the longest length known is 5");
    let mut drawn = [0; 5];
    (0..8000).for_each(|i| drawn[lengths.draw(f64::from(i) / 8000.0, 1..=5) - 1] += 1);
    assert_eq!(drawn, [1000, 2000, 2000, 2000, 1000]);
    assert_eq!(lengths.draw(1.0, 1..=5), 5);
    let mut drawn = [0; 5];
    (0..2000).for_each(|i| drawn[lengths.draw(f64::from(i) / 2000.0, 2..=3) - 1] += 1);
    assert_eq!(drawn, [0, 1000, 1000, 0, 0]);
    let kept = serde_json::to_string(&lengths).unwrap();
    assert_eq!(serde_json::from_str::<Lengths>(&kept).unwrap(), lengths);
}

#[test]
fn masks_depend_on_the_sample_and_its_place() {
    let shape = Shape { rows: 8, positions: 40, vocab: 9 };
    let texts: Vec<_> = (0..4).map(|id| text(id, &[7; 40][..40 - id as usize], 2)).collect();
    for masking in [Masking::Bernoulli, Masking::Count] {
        let masker = Masker { schedule: Schedule::Cosine, masking, seed: 3 };
        let batch = masker.batch(&texts, 0..texts.len(), shape, 5);
        assert_eq!(batch.seen.lengths, [40, 39, 38, 37]);
        for (b, row) in batch.seen.tokens.chunks(40).enumerate() {
            let targets = &batch.targets[b * 40..][..40];
            let masked: Vec<_> = (0..40).filter(|&i| row[i] == shape.mask()).collect();
            assert!(masked.iter().all(|i| texts[b].maskable().contains(i) && targets[*i] == 7));
            let others = (0..40).filter(|i| !masked.contains(i));
            assert!(others.into_iter().all(|i| targets[i] == -1));
            assert!(row[texts[b].tokens.len()..].iter().all(|&id| id == 0));
            let (n, t) = (texts[b].maskable().len() as f64, batch.seen.times[b]);
            let weight = match masking {
                Masking::Bernoulli => masker.schedule.weight(t),
                Masking::Count => n / masked.len() as f64,
            };
            let maskable = 38.0 + 37.0 + 36.0 + 35.0;
            assert_eq!(batch.weights[b], weight / maskable, "{masked:?}");
            assert!(masking == Masking::Bernoulli || !masked.is_empty());
        }
        let others = [
            masker.batch(&texts, 0..texts.len(), shape, 6),
            Masker { seed: 4, ..masker }.batch(&texts, 0..texts.len(), shape, 5),
        ];
        assert!(others.iter().all(|other| other.seen.tokens != batch.seen.tokens));
        // Every quarter of the unit interval has one time, or every quarter of the counts.
        if masking == Masking::Bernoulli {
            let mut quarters: Vec<_> = batch.seen.times.iter().map(|t| (4.0 * t).ceil() as i32).collect();
            quarters.sort_unstable();
            assert_eq!(quarters, [1, 2, 3, 4]);
        }
    }
}

#[test]
fn both_ways_of_masking_estimate_the_bound_per_token() {
    let mut table = Table::new(3, 4);
    let texts = [text(0, &[0, 1, 1, 2], 1), text(1, &[2, 1, 0], 0)];
    let exact: f64 = texts.iter().map(|text| Exact::of(&mut table, text).unwrap().nelbo).sum();
    for masking in [Masking::Bernoulli, Masking::Count] {
        let masker = Masker { schedule: Schedule::Poly(2.0), masking, seed: 3 };
        let shape = table.shape;
        let mut loss = |step| -> f64 {
            let batch = masker.batch(&texts, 0..texts.len(), shape, step);
            let asked = batch.targets.iter().enumerate().filter(|(_, target)| **target >= 0);
            let asked: Vec<_> = asked.map(|(at, &target)| (at, target)).collect();
            let costs = table.costs(&batch.seen, &asked).unwrap();
            costs.iter().zip(&asked).map(|(cost, &(at, _))| batch.weights[at / shape.positions] * cost.nll).sum()
        };
        let losses: Vec<f64> = (0..4000).map(&mut loss).collect();
        let mean = crate::evaluate::Mean::of(&losses);
        let apart = (mean.mean - exact / 6.0) / mean.error;
        assert!(apart.abs() < 4.0 && mean.error < 0.05, "{masking:?}: {mean:?}, exactly {}", exact / 6.0);
    }
}
