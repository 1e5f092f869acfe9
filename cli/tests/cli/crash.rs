//! Kills at any moment, interrupts, and the state of the run afterwards.

#![cfg(unix)]

use super::*;
use engine::rng::Stream;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

const STEPS: u64 = 200;
const SETTINGS: &[&str] =
    &["train.steps=200", "train.checkpoint_every=3", "train.eval_every=10", "train.sample_every=7"];

pub fn start(lab: &Lab, args: &[&str]) -> Child {
    lab.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

pub fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until `done`, at most a minute.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited too long for {what}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_run_becomes_the_run_that_was_never_killed() {
    let lab = Lab::new();
    let begun = Instant::now();
    lab.train("whole", SETTINGS).succeeds();
    let duration = begun.elapsed();

    let moments = Stream::new(1, 1);
    let (mut kills, mut resumed) = (0, 0);
    for round in 0..12 {
        let exists = lab.path("killed/config.json").exists();
        let args = if exists { vec!["train", "--resume", "killed"] } else { train_args("killed", SETTINGS) };
        let mut child = start(&lab, &args);
        // From before the folder exists to about a tenth of the whole run.
        sleep(duration.mul_f64(moments.uniform(round) * 0.12));
        child.kill().unwrap();
        if child.wait().unwrap().success() {
            break;
        }
        kills += 1;
        resumed += u32::from(exists);
    }
    assert!(kills >= 4 && resumed >= 2, "{kills} kills hit, {resumed} of a resumed run: the test has lost its grip");
    lab.run(&["train", "--resume", "killed"]).succeeds();
    let (whole, killed) = (lab.path("whole"), lab.path("killed"));
    assert_eq!(checkpoint_bytes(&whole, STEPS), checkpoint_bytes(&killed, STEPS));
    assert_eq!(metrics(&whole), metrics(&killed));
}

/// Ctrl-C, a system shutdown, and a terminal that closes.
#[test]
fn interrupts_save_and_stop() {
    let endless = train_args("run", &["train.steps=1000000", "train.checkpoint_every=0", "train.eval_every=0"]);
    let step = |lab: &Lab| *steps(&lab.path("run")).last().unwrap_or(&0);
    for name in ["-INT", "-TERM", "-HUP"] {
        let lab = Lab::new();
        let child = start(&lab, &endless);
        wait_until("the third step", || step(&lab) >= 3);
        // No other process may write to the run meanwhile.
        lab.refuses(1, &[("train --resume run", "another process")]);
        signal(&child, name);
        let said = Said::of(child.wait_with_output().unwrap(), &endless);
        assert_eq!(said.code, Some(130), "{}", said.context());
        let last = step(&lab);
        said.says(&format!("interrupted after step {last}, which is saved | ltm train --resume run"));
        let saved = checkpoint_bytes(&lab.path("run"), last);

        // It continues from there.
        let more = format!("train --resume run --set train.steps={}", last + 1);
        lab.ltm(&more).succeeds().says("learning rates");
        assert_ne!(checkpoint_bytes(&lab.path("run"), last + 1), saved);
        lab.ltm("train --resume run").succeeds().says("0 of");
    }

    // An ignored signal does not stop the run.
    let lab = Lab::new();
    let mut command = Command::new("nohup");
    command.arg(env!("CARGO_BIN_EXE_ltm")).args(&endless).current_dir(lab.0.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the third step", || step(&lab) >= 3);
    signal(&child, "-HUP");
    let seen = step(&lab);
    wait_until("three more steps", || step(&lab) >= seen + 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_second_interrupt_stops_at_once() {
    let lab = Lab::new();
    // One step of these takes far longer than the test.
    let args = train_args("run", &["fast.steps=60000", "train.batch=8"]);
    let mut child = start(&lab, &args);
    wait_until("the beginning", || lab.path("run/metrics.jsonl").exists());
    sleep(Duration::from_millis(300));
    signal(&child, "-INT");
    sleep(Duration::from_millis(100));
    assert_eq!(child.try_wait().unwrap(), None, "the first interrupt waits for the step");
    signal(&child, "-INT");
    let begun = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(steps(&lab.path("run")).is_empty());
}

#[test]
fn runs_that_begin_at_once_take_a_folder_each() {
    let lab = Lab::new();
    let args = [&["train", "--data", "text.txt", "--set"], TINY].concat();
    let children: Vec<Child> = (0..4).map(|_| start(&lab, &args)).collect();
    children.into_iter().for_each(|child| _ = Said::of(child.wait_with_output().unwrap(), &args).succeeds());
    assert_eq!(lab.names("runs"), ["tiny", "tiny-2", "tiny-3", "tiny-4"]);
}

/// The run's folder disappears, or a data file gets shorter, during training: one line of error, and nothing is created
/// again.
#[test]
fn what_lies_under_a_run_changes() {
    let endless = ["train.steps=1000000", "train.checkpoint_every=5", "train.eval_every=0", "slow.warmup=2"];
    let last = |lab: &Lab, run: &str| *steps(&lab.path(run)).last().unwrap_or(&0);
    let after_three_steps = |lab: &Lab, data: &str, change: &dyn Fn()| {
        let args = [&["train", "--data", data, "--out", "run", "--set"], TINY, &endless].concat();
        let child = start(lab, &args);
        wait_until("the third step", || last(lab, "run") >= 3);
        change();
        Said::of(child.wait_with_output().unwrap(), &args)
    };
    let gone = ["run", "was moved, removed or replaced"];

    let lab = Lab::new();
    let moved = || fs::rename(lab.path("run"), lab.path("moved")).unwrap();
    after_three_steps(&lab, "text.txt", &moved).fails(1, &gone);
    assert_eq!(lab.names("."), ["moved", "text.txt"]);
    let at = last(&lab, "moved");
    lab.ltm(&format!("train --resume moved --set train.steps={}", at + 1)).succeeds();

    let lab = Lab::new();
    // A checkpoint may be in progress.
    let removed = || wait_until("the removal", || fs::remove_dir_all(lab.path("run")).is_ok());
    let said = after_three_steps(&lab, "text.txt", &removed);
    said.fails(1, &["run"]);
    assert_eq!(lab.names("."), ["text.txt"]);

    let lab = Lab::new();
    lab.ltm("data prepare text.txt --out shards").succeeds();
    let shard = lab.path("shards/train-00000.bin");
    let length = fs::metadata(&shard).unwrap().len();
    let shorter = || fs::File::options().write(true).open(&shard).unwrap().set_len(1100).unwrap();
    let said = after_three_steps(&lab, "shards", &shorter);
    said.fails(1, &[&format!("train-00000.bin has changed since it was opened (1100 bytes now, {length} then)")]);
    checkpoint_bytes(&lab.path("run"), last(&lab, "run"));
}
