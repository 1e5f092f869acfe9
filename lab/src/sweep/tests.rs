use super::*;
use crate::eval::{Row, TRAINING_TEXT};
use crate::plot::{Mark, Plot};
use crate::toml_file;
use engine::{Error, ErrorKind, Result};
use ltm::config::{Config, ModelKind};
use ltm::evaluate::{Protocol, SequenceScore as Score};
use ltm::json;
use std::num::NonZeroUsize;
use std::path::Path;

fn sweep(text: &str) -> Result<Sweep> {
    toml_file::parse(text, Path::new("f"))
}

fn points(text: &str) -> Result<Vec<Point>> {
    sweep(text)?.points(|_| Ok(()))
}

const GRID: &str = "
fast_steps = [2, 4, 8]
latents = [2, 4]
tokens = [4096, 8193]
size.narrow.model.dim = 32
size.wide.model.dim = 64
set.train.batch = 8
set.model.seq = 256
baseline = true";

#[test]
fn a_grid_is_every_combination_once() {
    let points = points(GRID).unwrap();
    // 3 fast steps × 2 latents × 2 sizes × 2 budgets; per size and budget a baseline for each number of latents, and one
    // without.
    assert_eq!(points.len(), 24 + 4 * 3);
    let names: Vec<&str> = points.iter().map(|point| point.name.as_str()).collect();
    assert_eq!(
        names[5..9],
        ["narrow-T8-K4-4096", "narrow-K2-ar-latent-4096", "narrow-K4-ar-latent-4096", "narrow-ar-4096"]
    );
    assert_eq!((names[0], names[35]), ("narrow-T2-K2-4096", "wide-ar-8193"));
    let last = points[32].config.as_ref().unwrap();
    assert_eq!((last.fast.steps, last.model.latents, last.model.dim), (8, 4, 64));
    // 8 × 256 positions a step: 4096 are two of them, 8193 are four and one more.
    assert_eq!((points[0].asked.train.steps, last.train.steps, points[32].tokens()), (2, 5, 10_240));
    assert!(!points[6].asked.model.kind.infers() && last.model.kind.infers());
    assert_eq!(self::points("").unwrap()[0].config, Config::preset("demo").unwrap().resolved());
}

#[test]
fn a_size_may_start_elsewhere_and_has_the_last_word() {
    let points = points(
        "preset = 'tiny'
        seeds = [0, 7]
        set.train.batch = 2
        [size.b]
        [size.a]
        preset = 'demo'
        train.batch = 4",
    );
    let points = points.unwrap();
    let found: Vec<_> = points.iter().map(|p| (p.name.as_str(), p.asked.train.batch, p.asked.model.dim)).collect();
    assert_eq!(found, [("b-s0", 2, 128), ("a-s0", 4, 64), ("b-s7", 2, 128), ("a-s7", 4, 64)]);
}

#[test]
fn mistakes_say_what_would_be_right() {
    for (text, part) in [
        ("\nfast_step = [1]", "f:2: unknown field `fast_step`, expected one of `preset`"),
        ("\nset.model.dmi = 1", "did you mean \"model.dim\""),
        ("\n[size.a]\nfast.stps = 1", "did you mean \"fast.steps\""),
        ("size.'a b'.model.dim = 1", "letters, digits"),
        ("set.model.dim = 'x'", "model.dim"),
        ("set.model.kind = 'ar'", "baseline = true"),
        ("preset = 'dmeo'", "did you mean \"demo\""),
        ("samples = 0", "f:1: invalid value: integer `0`"),
        ("size = 3", "f:1: invalid type"),
        ("\nseeds = []", "f:2: an empty list"),
        ("seeds = [1, 1]", "demo-s1 and demo-s1 have the same configuration"),
        ("tokens = [1, 2]", "demo-1 and demo-2 have the same configuration"),
        ("fast_steps = [2]\nsize.a.fast.steps = 3", "fast.steps is already set by fast_steps = [2]"),
    ] {
        let error = points(text).unwrap_err();
        assert!(error.to_string().contains(part) && error.kind == ErrorKind::Usage, "{text}: {error}");
    }
}

#[test]
fn a_contradiction_is_one_point_s_failure() {
    let points = points("latents = [4, 4000]").unwrap();
    assert!(points[0].config.is_ok());
    let error = points[1].config.as_ref().unwrap_err();
    assert!(error.to_string().contains("model.latents = 4000"), "{error}");
}

#[test]
fn only_what_changes_a_result_changes_the_point() {
    let point = point();
    let mut other = point.clone();
    let found = other.config.as_mut().unwrap();
    found.train.threads = 7;
    found.train.checkpoint_every = 1;
    assert_eq!(other.config_sha256(), point.config_sha256());
    assert_eq!(point.difference(other.config.as_ref().unwrap()), None);
    other.config.as_mut().unwrap().train.steps += 1;
    assert_ne!(other.config_sha256(), point.config_sha256());
    let (key, found, wanted) = point.difference(other.config.as_ref().unwrap()).unwrap();
    assert_eq!((key, found, wanted), ("train.steps", 3.into(), 2.into()));
    let mut sweep = sweep(GRID).unwrap();
    let [key, data] = ["a", "b"].map(|data| sweep.key(&point, data, "cpu"));
    assert_eq!(sweep.key(&point, "a", "cpu"), key);
    sweep.samples = Some(NonZeroUsize::MIN);
    assert!(data != key && sweep.key(&point, "a", "cpu") != key);
}

fn point() -> Point {
    points(GRID).unwrap().remove(0)
}

fn finished(nats: [f64; 2]) -> Finished {
    let score = |nats: f64| Score {
        nats,
        nll: nats - 1.0,
        kl: 1.0,
        tokens: 10,
        bytes: 10.0,
        exact: Some(nats / 2.0),
        ..Score::default()
    };
    let row = Row::of(Protocol::Elbo, ModelKind::Ltm, &nats.map(score));
    Finished::of(&point(), 10.0, "0123", (4000, 1.0), &row, false, 1.0).unwrap()
}

#[test]
fn results_carry_their_error_and_the_truth() {
    let result = finished([20.0, 24.0]);
    let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
    // 44 nats for 20 tokens; two sequences, 2 nats to either side: an error of 4 nats in 20 tokens.
    assert!(close(result.perplexity, 2.2f64.exp()) && close(result.perplexity_error, 2.2f64.exp() * 4.0 / 20.0));
    assert!(close(result.least_perplexity.unwrap(), 1.1f64.exp()) && result.holds == Some(true));
}

/// The outcome of a point of another size with this many tokens.
fn outcome(size: &str, latents: usize, fast_steps: usize, tokens: u64, perplexity: f64) -> Outcome {
    let flops_per_token = (fast_steps as f64 + 1.0) * 10.0;
    let result = finished([20.0, 24.0]);
    let result = Finished {
        flops_per_token,
        perplexity,
        perplexity_error: 0.1,
        least_perplexity: Some(1.5),
        floor_perplexity: Some(8.0),
        ..result
    };
    let outcome = Outcome::of("", &point(), "ltm sweep", Ok(result));
    let kind = if fast_steps > 0 { "ltm" } else { ["ar", "ar-latent"][usize::from(latents > 0)] }.into();
    Outcome { size: size.into(), kind, latents_total: latents, fast_steps, budget: tokens, ..outcome }
}

#[test]
fn outcomes_are_lines_of_a_file() {
    let failed = Outcome::of("", &point(), "ltm sweep", Err(Error::new("memory")));
    assert_eq!((failed.reason.as_deref(), &failed.result), (Some("memory"), &None));
    // Two layers.
    assert_eq!((failed.latents_per_layer, failed.latents_total, failed.command.as_str()), (2, 4, "ltm sweep"));
    for outcome in [failed, outcome("a", 4, 2, 200, 40.0)] {
        let line = json::line(&outcome);
        assert_eq!(json::from_bytes::<Outcome>(&line).unwrap(), outcome, "{line}");
        let csv = String::from_utf8(csv(std::slice::from_ref(&outcome))).unwrap();
        assert!(csv.contains("\nnarrow-T2-K2-4096,ltm,"), "{csv}");
        assert_eq!(csv.trim_end().ends_with("ltm sweep,memory"), outcome.result.is_none(), "{csv}");
    }
}

#[test]
fn figures_have_a_line_per_size_and_latents() {
    let mut all = Vec::new();
    for (size, latents) in [("a", 4), ("a", 8), ("b", 4)] {
        for tokens in [100, 200] {
            let cost = |steps: usize| 100.0 / steps as f64 + latents as f64 / tokens as f64;
            all.extend([4, 2].map(|steps| outcome(size, latents, steps, tokens, cost(steps))));
        }
    }
    all.extend([(0, 40.0), (4, 45.0)].map(|(latents, cost)| outcome("a", latents, 0, 200, cost)));
    all.push(Outcome { result: None, ..all[0].clone() });
    let figures = figures(&all);
    let [(_, steps), (_, tokens), (_, flops)] = &figures[..] else { panic!("{figures:?}") };
    let names: Vec<&str> = steps.series.iter().map(|series| series.name.as_str()).collect();
    let exact = ["a, ar, exact", "a, ar-latent, N_z = 4, exact", "best reader without memory", "true source"];
    assert_eq!(names, [&["a, N_z = 4", "a, N_z = 8", "b, N_z = 4"][..], &exact].concat());
    let xs = |plot: &Plot| plot.series[0].marks.iter().map(|mark| mark.at[0]).collect::<Vec<_>>();
    assert_eq!((xs(steps), xs(tokens), xs(flops)), (vec![2.0, 4.0], vec![100.0, 200.0], vec![30.0, 50.0]));
    assert_eq!(steps.series[0].marks[0].at[1], 50.0 + 4.0 / 200.0);
    // Without fast steps a baseline is a horizontal line, dashed because it is exact; elsewhere it has a point.
    let level = |i: usize| (steps.series[i].line[0][1], steps.series[i].line[1][1], steps.series[i].marks.len());
    assert_eq!([3, 4, 5, 6].map(level), [(40.0, 40.0, 1), (45.0, 45.0, 1), (8.0, 8.0, 0), (1.5, 1.5, 0)]);
    assert_eq!([3, 4].map(|i| steps.series[i].look.stroke), [1, 1]);
    // The colour is that of the same number of latents.
    assert_eq!([0, 4].map(|i| steps.series[i].look.colour), [0, 0]);
    assert_eq!(tokens.series[3].marks, [Mark { error: 0.1, ..Mark::new(200.0, 40.0) }]);
    assert!(super::figures(&[]).is_empty());

    // Figures and CSV say that a text is not unseen.
    let told = |all: &[Outcome]| {
        let csv = String::from_utf8(csv(all)).unwrap();
        let notes = super::figures(all)[0].1.notes.clone();
        (csv.contains(",true,"), notes.iter().any(|note| note.contains(TRAINING_TEXT)))
    };
    assert_eq!(told(&all[..2]), (false, false));
    all[1].result.as_mut().unwrap().data_learnt = true;
    assert_eq!(told(&all[..2]), (true, true));

    // Seeds at the same place are one mark: their geometric mean, with the error over seeds.
    let seeds = [2.0, 8.0].map(|perplexity| outcome("a", 4, 2, 100, perplexity));
    let mark = super::figures(&seeds)[0].1.series[0].marks[0].clone();
    // In the table, differences are between points of the same seed: 10 tokens a sequence.
    let of_seed = |steps: usize, latents: usize, seed: u64, nats: f64| Outcome {
        seed,
        ..outcome("a", latents, steps, 100, (nats / 10.0).exp())
    };
    let all: Vec<Outcome> = [(2, 4, [20.0, 24.0]), (8, 4, [19.0, 22.0]), (8, 8, [18.0, 21.0]), (0, 0, [30.0, 33.0])]
        .into_iter()
        .flat_map(|(steps, latents, nats)| [0, 1].map(|seed| of_seed(steps, latents, seed, nats[seed as usize])))
        .collect();
    let text = text(&all).split_whitespace().collect::<Vec<_>>().join(" ");
    for row in [
        "22.00 ± 2.00 -9.50 ± 0.50",
        "20.50 ± 1.50 -11.00 ± 0.00 -1.50 ± 0.50",
        "19.50 ± 1.50 -12.00 ± 0.00 -1.00 ± 0.00",
    ] {
        assert!(text.contains(row), "{text}");
    }
    assert!((mark.at[1] - 4.0).abs() < 1e-12 && (mark.error - 4.0 * 4f64.ln() / 2.0).abs() < 1e-12, "{mark:?}");
}
