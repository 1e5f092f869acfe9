//! A run from its first step to the text that it writes, on a device that the host shim stands in for: trained, stopped, gone
//! on with, judged and used, against the same on the CPU.

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
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("a folder of this test");
    }
    fs::create_dir_all(&folder).expect("a temporary folder");
    let text = folder.join("text.txt");
    fs::write(&text, (0..40).map(|i| format!("{} green bottles on wall {}.\n", i * 7 % 13, i % 5)).collect::<String>())
        .expect("a file");
    let config = crate::config(&[
        ("model.seq", "12"),
        ("train.steps", "4"),
        ("train.checkpoint_every", "2"),
        ("train.keep_checkpoints", "9"),
        ("train.eval_every", "0"),
        ("slow.warmup", "2"),
        ("slow.gradient", "trajectory"),
        ("fast.steps", "2"),
        ("data.paths", &text.display().to_string()),
    ]);
    (folder, config)
}

fn shim() -> Device {
    crate::shim(Order::Forward)
}

/// Goes on until `step`; what every step cost, and the validation behind the last.
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

fn new(folder: &Path) -> NewFolder {
    NewFolder::at(folder).expect("a new folder")
}

/// A run of all steps.
fn train(folder: &Path, config: &Config, device: &Device) -> Vec<f64> {
    let material = lab::text::material(config).expect("data");
    advance(&mut Session::begin(&new(folder), config, &material, device).expect("a run"), STEPS)
}

/// How far `ours` is from `exact`, and that both are as long.
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
    let source: Arc<dyn Source> = lab::text::material(&model.config).expect("data").validation.expect("held-out text");
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

/// Logits of a text that goes on with what is likeliest, behind inferred latents and behind drawn ones.
fn write(run: &Path, device: &Device) -> Vec<f64> {
    let mut model = Run::open(run).and_then(|run| run.load(device, Work::Generation)).expect("a model");
    let thinker = Thinker::new(&model.config, 2, &model.params, &mut model.store).expect("a thinker");
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

#[test]
fn a_run_on_a_device_is_a_run_on_the_cpu() {
    let (folder, config) = lab("whole");
    let [gpu, cpu] = ["gpu", "cpu"].map(|name| folder.join(name));
    let (device, exact) = (train(&gpu, &config, &shim()), train(&cpu, &config, &Device::Cpu));
    assert_close("training", &device, &exact, 1e-4);

    // What either has saved, both can go on with.
    for run in [&gpu, &cpu] {
        assert_close("protocols", &judge(run, &shim()), &judge(run, &Device::Cpu), 1e-4);
        assert_close("logits", &write(run, &shim()), &write(run, &Device::Cpu), 1e-4);
    }
}

/// Activations lose some bits at every step, what is learned does not; and what was learnt so can be used on the CPU.
#[test]
fn a_run_in_bf16() {
    let (folder, mut config) = lab("bf16");
    let [gpu, cpu] = ["gpu", "cpu"].map(|name| folder.join(name));
    let exact = train(&cpu, &config, &Device::Cpu);
    config.set("train.precision", "bf16").expect("a setting");
    let ours = train(&gpu, &config, &shim());
    assert_close("training", &ours, &exact, 3e-2);
    assert!(ours.iter().zip(&exact).any(|(a, b)| (a - b).abs() > 1e-5 * b.abs()), "bf16 was not used");
    assert_close("protocols", &judge(&gpu, &shim()), &judge(&gpu, &Device::Cpu), 3e-2);

    let material = lab::text::material(&config).expect("data");
    let refused = Session::begin(&new(&folder.join("no")), &config, &material, &Device::Cpu).err().expect("a refusal");
    assert!(refused.to_string().contains("train.precision = bf16 needs a GPU"), "{refused}");
}

#[test]
fn a_run_that_was_stopped_goes_on_with_the_same_bits() {
    let (folder, config) = lab("stopped");
    let [whole, parts] = ["whole", "parts"].map(|name| folder.join(name));
    train(&whole, &config, &shim());
    let material = lab::text::material(&config).expect("data");
    advance(&mut Session::begin(&new(&parts), &config, &material, &shim()).expect("a run"), 2);
    assert!(checkpoint(&whole, 2) == checkpoint(&parts, 2));
    let (mut session, _) = Session::resume(&Run::open(&parts).expect("a run"), &material, &shim()).expect("a session");
    assert_eq!(session.step(), 2);
    advance(&mut session, STEPS);
    assert!(checkpoint(&whole, 4) == checkpoint(&parts, 4));
    assert!(checkpoint(&whole, 4)[0] != checkpoint(&whole, 2)[0], "training changes the weights");
}

#[test]
fn what_a_device_cannot_do_leaves_nothing_behind() {
    let (folder, config) = lab("refused");
    let run = folder.join("run");
    let material = lab::text::material(&config).expect("data");
    let threads = Order::Forward;
    let heads = "model.dim = 272 by model.heads = 2 makes heads of width 136, but attention in f32 on host shim takes at most \
                 128: use more heads";
    let long = [("train.batch", "50000"), ("model.seq", "1024"), ("model.max_seq", "0")];
    for (settings, device, said) in [
        (&[][..], Shim::small(100_000), "KiB of device memory are needed, host shim has room for 97.66 KiB"),
        (&[], Shim::small(100_000), ": lower model.dim = 24 or model.layers = 2"),
        (&[("model.dim", "272")], Shim::device(threads), heads),
        (
            &[("model.dim", "136")],
            Shim::with_shared(99 << 10, None),
            "width 68, but attention in f32 on host shim takes at most 64",
        ),
        (&long, Shim::device(threads), "train.batch = 50000"),
        (&long, Shim::device(threads), "count to 2147483647"),
    ] {
        let mut config = config.clone();
        settings.iter().for_each(|(key, value)| config.set(key, value).expect("a setting"));
        let config = config.resolved().expect("a configuration");
        let begun = Session::begin(&new(&run), &config, &material, &loaded(device, &modules()));
        let refused = begun.err().expect("a refusal").to_string();
        assert!(refused.contains(said) && !run.exists(), "{refused}");
    }
    let mut far = config.clone();
    far.set("model.window", "6000").expect("a setting");
    let small = Shim::with_shared(24 << 10, None);
    far.check_device(&small, Work::Training).expect("tiles fit");
    let said = far.check_device(&small, Work::Generation).expect_err("a ring that does not").to_string();
    assert_eq!(said, "model.window = 6000, but generation on host shim looks back at most 5728 tokens");
}
