//! Tests a run on the host shim from its first step to generated text (training, stopping, resuming, evaluation, use)
//! against the same on the CPU.

use crate::shim;
use engine::Device;
use kernels::registry::modules;
use ltm::config::{Config, Work};
use ltm::data::Source;
use ltm::evaluate::{Evaluator, Protocol, Total};
use ltm::generate::{Thinker, Walk};
use ltm::run::{Line, NewFolder, Run, Session};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::shim::{Order, Shim, loaded};

const STEPS: u64 = 4;

/// An empty folder for one test, with a text in it, and the settings to learn from that text.
fn lab(name: &str) -> (PathBuf, Config) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("run").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a temporary folder");
    let text = folder.join("text.txt");
    fs::write(&text, (0..40).map(|i| format!("{} green bottles on wall {}.\n", i * 7 % 13, i % 5)).collect::<String>())
        .expect("a file");
    let often = "train.steps=4 train.checkpoint_every=2 train.keep_checkpoints=9 train.eval_every=0";
    let mut config =
        crate::config(&format!("model.seq=12 fast.steps=2 slow.warmup=2 slow.gradient=trajectory {often}"));
    config.set("data.paths", &text.display().to_string()).expect("a setting");
    (folder, config)
}

/// Continues until `step`; returns the loss of every step, and the last validation.
fn advance(session: &mut Session, step: u64) -> Vec<f64> {
    let mut seen = vec![];
    while session.step() < step {
        let progress = session.advance().expect("a step");
        assert_eq!(progress.warnings, [""; 0]);
        seen.extend([progress.report.nll, progress.report.kl, progress.report.grad_norm]);
        seen.extend(progress.lines.iter().filter_map(|line| match line {
            Line::Validation(line) => Some(line.nats_per_sequence),
            _ => None,
        }));
    }
    seen
}

/// A new run up to `step`.
fn train(folder: &Path, config: &Config, device: &Device, step: u64) -> engine::Result<Vec<f64>> {
    let material = lab::text::material(config).expect("data");
    let folder = NewFolder::at(folder).expect("a new folder");
    Ok(advance(&mut Session::begin(&folder, config, &material, device)?, step))
}

/// Checks that `ours` is close to `exact` and has the same length.
#[track_caller]
fn assert_close(what: &str, ours: &[f64], exact: &[f64], most: f64) {
    assert_eq!(ours.len(), exact.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(exact).enumerate() {
        // Written so that NaN fails.
        let close = (a - b).abs() <= most * b.abs().max(1.0);
        assert!(close, "{what}, number {i}: {a} and {b}");
    }
}

fn checkpoint(run: &Path, step: u64) -> [Vec<u8>; 3] {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    ["weights.safetensors", "moments.safetensors", "state.json"]
        .map(|name| fs::read(folder.join(name)).expect("a file"))
}

/// Every protocol's nats over the first sequences.
fn judge(run: &Path, device: &Device) -> Vec<f64> {
    let mut model = Run::open(run).and_then(|run| run.load(device, Work::Evaluation)).expect("a model");
    let source: Arc<dyn Source> =
        lab::text::material(&model.config).expect("data").validation.expect("validation text");
    let config = model.config.clone();
    let nats = |protocol: &Protocol| {
        let evaluator =
            Evaluator::new(&config, *protocol, 2, 3, &model.params, &mut model.store).expect("an evaluator");
        config.check_room(&model.store, Work::Evaluation).expect("room");
        let scores = evaluator.score(&mut model.store, &source, Some(3), |_| ()).expect("a score");
        Total::of(&scores).nats
    };
    Protocol::of(config.model.kind).iter().map(nats).collect()
}

/// Logits of greedy generation, with inferred latents and with latents from the prior.
fn write(run: &Path, device: &Device) -> Vec<f64> {
    let mut model = Run::open(run).and_then(|run| run.load(device, Work::Generation)).expect("a model");
    let thinker = Thinker::new(&model.config, &model.params, &mut model.store).expect("a thinker");
    let mut walk = Walk::new(&model.config.model, &model.params, Some(thinker.z()), &mut model.store).expect("a walk");
    let mut seen = vec![];
    for round in 0..2 {
        let mut token = u16::from(b'7');
        if round == 0 {
            thinker.infer(&model.config, &mut model.store, &[10, token], 0).expect("latents");
        } else {
            thinker.prior(&mut model.store, 3, 1);
        }
        walk.begin(&mut model.store);
        for _ in 0..7 {
            let logits = walk.step(&mut model.store, token).expect("sound kernels");
            token = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a token") as u16;
            seen.extend(logits);
            seen.push(f64::from(token));
        }
    }
    seen
}

/// In bf16 activations lose bits, but weights do not; and weights trained in bf16 can be used on the CPU.
#[test]
fn a_run_on_a_device_is_a_run_on_the_cpu() {
    let (folder, mut config) = lab("whole");
    let (cpu, device) = (folder.join("cpu"), shim(Order::Forward));
    let exact = train(&cpu, &config, &Device::CPU, STEPS).expect("a run");
    for (precision, most) in [("f32", 1e-4), ("bf16", 3e-2)] {
        config.set("train.precision", precision).expect("a setting");
        let run = folder.join(precision);
        let ours = train(&run, &config, &device, STEPS).expect("a run");
        assert_close("training", &ours, &exact, most);
        let differs = ours.iter().zip(&exact).any(|(a, b)| (a - b).abs() > 1e-5 * b.abs());
        assert!(precision == "f32" || differs, "bf16 was not used");
        assert_close("protocols", &judge(&run, &device), &judge(&run, &Device::CPU), most);
    }

    // Each can resume the checkpoint of the other.
    assert_close("protocols", &judge(&cpu, &device), &judge(&cpu, &Device::CPU), 1e-4);
    for run in [&cpu, &folder.join("f32")] {
        assert_close("logits", &write(run, &device), &write(run, &Device::CPU), 1e-4);
    }
}

/// For any order of threads.
#[test]
fn a_run_that_was_stopped_goes_on_with_the_same_bits() {
    let (folder, mut config) = lab("stopped");
    for precision in ["f32", "bf16"] {
        config.set("train.precision", precision).expect("a setting");
        let [whole, parts] = ["whole", "parts"].map(|name| folder.join(precision).join(name));
        fs::create_dir(folder.join(precision)).expect("a folder");
        train(&whole, &config, &shim(Order::Forward), STEPS).expect("a run");
        train(&parts, &config, &shim(Order::Shuffled), 2).expect("a run");
        assert!(checkpoint(&whole, 2) == checkpoint(&parts, 2));
        let (material, run) = (lab::text::material(&config).expect("data"), Run::open(&parts).expect("a run"));
        let (mut session, _) = Session::resume(&run, &material, &shim(Order::Backward)).expect("a session");
        assert_eq!(session.step(), 2);
        advance(&mut session, STEPS);
        assert!(checkpoint(&whole, 4) == checkpoint(&parts, 4));
        assert!(checkpoint(&whole, 4)[0] != checkpoint(&whole, 2)[0], "training changes the weights");
    }
}

/// The bits depend on the GPU's software. A record that lacks it says nothing.
#[test]
fn a_session_warns_of_other_software() {
    let (folder, config) = lab("software");
    let (run, device) = (folder.join("run"), shim(Order::Forward));
    train(&run, &config, &device, 2).expect("a run");
    let (records, recorded) =
        (run.join("sessions.jsonl"), r#","driver":"none","products":"plain loops","kernels":"g++""#);
    let resumed = |other: &str| {
        let text = fs::read_to_string(&records).expect("records");
        assert!(text.contains(recorded), "{text}");
        fs::write(&records, text.replace(recorded, other)).expect("a file");
        let material = lab::text::material(&config).expect("data");
        Session::resume(&Run::open(&run).expect("a run"), &material, &device).expect("a session").1
    };
    assert_eq!(resumed(recorded), [""; 0]);
    assert_eq!(resumed(""), [""; 0]);
    let other = recorded.replace("none", "550").replace("g++", "nvcc");
    let bits = "; so the bits may differ from those of one session";
    let said = [
        format!("the GPU's driver differs: \"550\" then, \"none\" now{bits}"),
        format!("the compiler of the GPU's kernels differs: \"nvcc\" then, \"g++\" now{bits}"),
    ];
    assert_eq!(resumed(&other), said);
}

#[test]
fn what_a_device_cannot_do() {
    let (whole, rtx, small) =
        (Shim::device(Order::Forward), Shim::with_shared(99 << 10, None), Shim::with_shared(24 << 10, None));
    let long = "train.batch=50000 model.seq=1024 model.max_seq=0";
    let wide = "by model.heads = 2 makes heads of width 136, but attention in f32 on host shim takes at most 128";
    let far = "model.window=6000 model.seq=6000 model.max_seq=0";
    let ring = "model.window = 6000, but generation on host shim supports at most 5728 tokens";
    for (settings, device, work, said) in [
        ("model.dim=272", &whole, Work::Training, wide),
        ("model.dim=136", &rtx, Work::Training, "width 68, but attention in f32 on host shim takes at most 64"),
        (long, &whole, Work::Training, "50000 sequences of model.seq = 1024"),
        (far, &small, Work::Generation, ring),
    ] {
        let config = crate::config(settings);
        let refused = config.check_device(device, work).expect_err("a refusal").to_string();
        assert!(refused.contains(said), "{refused}");
    }
    // It trains all the same, without samples of text.
    let (folder, mut config) = lab("far");
    fs::write(folder.join("text.txt"), "text ".repeat(6000)).expect("a file");
    config.set_all(&format!("{far} train.sample_every=1")).expect("settings");
    let material = lab::text::material(&config).expect("data");
    let new = NewFolder::at(&folder.join("run")).expect("a new folder");
    let session = Session::begin(&new, &config, &material, &loaded(small, &modules())).expect("a session");
    assert_eq!(session.warnings, [format!("no samples of text: {ring}; train.sample_every = 0 wants none")]);
}
