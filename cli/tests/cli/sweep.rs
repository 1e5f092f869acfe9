//! Tests `ltm sweep`.

use super::*;
use serde_json::Value;

/// Small points: two values of T, two sizes, two baselines each; `extra` comes first.
fn lab(extra: &str) -> Lab {
    let lab = Lab::new();
    let tiny = TINY.iter().filter(|s| !s.starts_with("fast.steps") && !s.starts_with("model.dim"));
    let set = tiny.map(|s| s.replace('=', " = ") + "\n").collect::<String>();
    lab.write(
        "sweep.toml",
        format!(
            "{extra}\npreset = 'tiny'\nfast_steps = [1, 2]\nbaseline = true\nsequences = 6\nsamples = 2\n\
             [set]\ndata.paths = 'text.txt'\nfast.noise = 'fresh'\n{set}[size.a]\nmodel.dim = 16\n[size.b]\nmodel.dim = 8\n"
        ),
    );
    lab
}

fn lines(lab: &Lab) -> Vec<Value> {
    ltm::json::read_lines(&lab.path("out/sweep.jsonl")).unwrap()
}

const SWEEP: &[&str] = &["sweep", "sweep.toml", "--out", "out"];

#[test]
fn a_sweep_leaves_runs_a_table_and_figures() {
    let lab = lab("");
    lab.ltm("sweep sweep.toml --out out --dry-run").succeeds().says("8 points | a-T1 | FLOP/token");
    assert!(!lab.path("out").exists());
    lab.run(SWEEP).succeeds().says("a-T2 | upper bound | exact | by ltm sweep sweep.toml --out out");
    let lines = lines(&lab);
    assert_eq!(lines.len(), 8);
    for line in &lines {
        let name = line["point"].as_str().unwrap();
        assert!(lab.path(&format!("out/{name}/config.json")).exists());
        let (kind, protocol) = (line["kind"].as_str().unwrap(), line["protocol"].as_str().unwrap());
        assert_eq!(protocol, if kind.starts_with("ar") { "nll" } else { "elbo" });
        assert_eq!(line["tokens"].as_u64().unwrap(), 6 * 2 * 32);
        assert_eq!(line["weights_sha256"].as_str().unwrap().len(), 64);
    }
    // The same as `eval` on the same sequences.
    let eval = lab.ltm("eval out/b-T2 --protocol elbo --limit 6 --samples 2 --json").succeeds().json();
    let expected = eval["results"][0]["perplexity"].as_f64().unwrap();
    let line = lines.iter().find(|line| line["point"] == "b-T2").unwrap();
    assert!((line["perplexity"].as_f64().unwrap() - expected).abs() < 1e-9 * expected);

    let csv = lab.read("out/sweep.csv");
    assert_eq!(csv.lines().count(), 9, "{csv}");
    for name in ["steps", "tokens", "flops"] {
        let svg = lab.read(&format!("out/perplexity-{name}.svg"));
        assert!(svg.starts_with("<svg") && svg.contains("a, N_z = 2") && !svg.contains("NaN"), "{svg}");
    }

    // Nothing is done twice; other draws give other figures for the same runs.
    let again = lab.run(SWEEP).succeeds();
    assert_eq!(again.err.matches("kept from").count(), 8, "{}", again.context());
    let text = lab.read("sweep.toml");
    lab.write("sweep.toml", text.replace("samples = 2", "samples = 3"));
    let judged = lab.run(SWEEP).succeeds();
    assert!(!judged.err.contains("kept from") && judged.err.contains("0 of 6 steps to go"), "{}", judged.context());
    // Other settings are another sweep.
    lab.write("sweep.toml", text.replace("window = 8", "window = 4"));
    lab.run(SWEEP).fails(2, &["out/a-T1", "model.window = 8", "needs 4", "--out"]);
}

#[test]
fn a_point_that_fails_is_recorded_and_the_rest_goes_on() {
    let lab = lab("latents = [2, 400]");
    let text = lab.read("sweep.toml").replace("model.latents = 2\n", "");
    // An extreme rate, so that training soon diverges.
    lab.write("sweep.toml", format!("{text}slow.rate = 1e38\nslow.clip = 1e38\nslow.warmup = 0\n"));
    let said = lab.run(SWEEP);
    assert_eq!(said.code, Some(1), "{}", said.context());
    said.says("a-T1-K400 failed: model.latents = 400 | training has diverged");
    let lines = lines(&lab);
    assert_eq!(lines.len(), 14);
    let reasons: Vec<&str> = lines.iter().filter_map(|line| line["reason"].as_str()).collect();
    assert_eq!(reasons.iter().filter(|reason| reason.contains("model.latents = 400")).count(), 6, "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("diverged")), "{reasons:?}");
    assert!(lines.iter().any(|line| line["perplexity"].is_number()));
}

#[test]
fn sweeps_that_cannot_be() {
    let lab = lab("fast_stps = [3]");
    lab.run(SWEEP).fails(2, &["sweep.toml:1", "fast_stps", "expected one of `preset`, `set`, `size`, `fast_steps`"]);
    lab.refuses(1, &[("sweep none.toml", "none.toml")]);
    assert!(!lab.path("out").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupted_sweep_goes_on_without_repeating_anything() {
    use super::crash::{signal, start, wait_until};
    let lab = lab("");
    let text = lab.read("sweep.toml").replace("train.steps = 6", "train.steps = 150");
    lab.write("sweep.toml", text.replace("train.eval_every = 3", "train.eval_every = 0"));
    lab.ltm("sweep sweep.toml --out whole").succeeds();
    let child = start(&lab, SWEEP);
    wait_until("the second point", || steps(&lab.path("out/a-T2")).len() >= 3);
    lab.run(SWEEP).fails(1, &["another process"]);
    signal(&child, "-INT");
    let said = Said::of(child.wait_with_output().unwrap(), SWEEP);
    assert_eq!(said.code, Some(130), "{}", said.context());
    said.says("the same command continues");
    assert_eq!(lines(&lab).len(), 1, "{}", said.context());
    let done = steps(&lab.path("out/a-T2")).len();
    assert!(done < 150, "the test has lost its grip");

    let said = lab.run(SWEEP).succeeds();
    said.says(&format!("a-T1: kept from | out/a-T2: {} of 150 steps to go", 150 - done));
    let lines = lines(&lab);
    let all: Vec<Value> = ltm::json::read_lines(&lab.path("whole/sweep.jsonl")).unwrap();
    assert_eq!(lines.len(), 8);
    for (line, whole) in lines.iter().zip(&all) {
        for key in ["point", "weights_sha256", "perplexity", "key"] {
            assert!(line[key].is_string() || line[key].is_number(), "{key}");
            assert_eq!(line[key], whole[key], "{key}");
        }
    }
}
