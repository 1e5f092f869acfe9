//! A run can be repeated from what it recorded, and what it recorded cannot be changed unnoticed.

use super::*;
use ltm::hash::sha256;
use ltm::json;
use ltm::run::{Record, Run, StepLine, ValidationLine};

/// The lines of a file of the run `run`, with the first occurrence of `find` replaced.
fn forge(lab: &Lab, file: &str, find: &str, replace: &str) {
    let path = lab.path("run").join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(find), "no {find:?} in {text}");
    fs::write(path, text.replacen(find, replace, 1)).unwrap();
}

#[test]
fn a_run_records_what_it_takes_to_repeat_it() {
    let lab = Lab::trained();
    let text = fs::read_to_string(lab.path("run/sessions.jsonl")).unwrap();
    let Record { program, machine, data, config, .. } = json::from_bytes(&text).unwrap();
    assert_eq!(program.sources.len(), 64);
    assert!(program.compiler.starts_with("rustc 1."), "{text}");
    assert!(!machine.processor.is_empty() && !machine.feature_used.is_empty());
    assert_eq!(data.files[0].file.sha256, sha256(fs::read(lab.path("text.txt")).unwrap()));
    assert_eq!(config, *Run::open(&lab.path("run")).unwrap().config());
}

#[test]
fn a_stretch_is_repeated_bit_for_bit() {
    let lab = Lab::trained();
    // Checkpoints behind steps 2, 4 and 6.
    let all = lab.run(&["replay", "run"]).succeeds();
    all.says("steps 1..6 repeated, all bits the same")
        .says("from the initial weights")
        .says("steps 2, 4, 6 byte for byte");
    let said = lab.run(&["--threads", "3", "replay", "run", "--steps", "4..5"]).succeeds();
    said.says("steps 4..5 from the checkpoint of step 2").says("the checkpoint of step 4 byte for byte");
    said.says("behind every step");
    lab.run(&["replay", "run", "--steps", "5..7"]).fails(2, &["5..7", "steps 1..6"]);
    lab.run(&["replay", "run", "--steps", "5"]).fails(2, &["FIRST..LAST"]);
    lab.run(&["replay", "text.txt"]).fails(1, &["text.txt"]);

    // Gone on with, with another end of the schedules: every step with the settings that it was done with.
    lab.run(&["train", "--resume", "run", "--set", "train.steps=9"]).succeeds();
    lab.run(&["replay", "run"]).succeeds().says("steps 1..9 repeated");
    lab.run(&["replay", "run", "--steps", "7..7"]).succeeds().says("step 7 repeated");
    fs::remove_dir_all(lab.path("run/checkpoints")).unwrap();
    lab.run(&["replay", "run"]).succeeds().says("steps 1..9 repeated").says("behind every step by their checksum");
}

#[test]
fn what_was_recorded_cannot_be_changed_unnoticed() {
    let lab = Lab::trained();
    let metrics = fs::read_to_string(lab.path("run/metrics.jsonl")).unwrap();
    let third = metrics.lines().find(|line| line.contains("\"step\":3,")).unwrap();
    let StepLine { grad_norm, state, .. } = json::from_bytes(third).unwrap();
    // The last bit of a number, and of the state's checksum.
    let entry = |name: &str, x: f64| format!("\"{name}\":{}", json::line(&x));
    let next = f64::from_bits(grad_norm.to_bits() ^ 1);
    let (was, forged) = (entry("grad_norm", grad_norm), entry("grad_norm", next));
    forge(&lab, "metrics.jsonl", &was, &forged);
    lab.run(&["replay", "run", "--steps", "3..3"]).fails(1, &["step 3 comes out differently", "grad_norm"]);
    forge(&lab, "metrics.jsonl", &forged, &was);
    let state = state.unwrap();
    let other = format!("{:016x}", u64::from_str_radix(&state, 16).unwrap() ^ 1);
    forge(&lab, "metrics.jsonl", &state, &other);
    lab.run(&["replay", "run", "--steps", "3..3"]).fails(1, &["step 3 comes out differently", "state", &other]);
    lab.run(&["replay", "run", "--steps", "5..6"]).succeeds();
    // The last bit of a validation.
    let line = metrics.lines().rfind(|line| line.contains("\"protocol\"")).unwrap();
    let ValidationLine { loss, .. } = json::from_bytes(line).unwrap();
    let (was, forged) = (entry("loss", loss), entry("loss", f64::from_bits(loss.to_bits() ^ 1)));
    forge(&lab, "metrics.jsonl", &was, &forged);
    lab.run(&["replay", "run", "--steps", "5..6"]).fails(1, &["validation after step 6 comes out differently", "loss"]);
    forge(&lab, "metrics.jsonl", &forged, &was);
    // A bit of a checkpoint.
    let weights = lab.path("run/checkpoints/step-00000006/weights.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    fs::write(&weights, flipped).unwrap();
    lab.run(&["replay", "run", "--steps", "5..6"]).fails(1, &["step-00000006", "weights.safetensors"]);
    fs::write(&weights, bytes).unwrap();
    // Another seed, said afterwards to have been the run's.
    forge(&lab, "metrics.jsonl", &other, &state);
    forge(&lab, "sessions.jsonl", "\"seed\":0", "\"seed\":1");
    lab.run(&["replay", "run", "--steps", "1..1"]).fails(1, &["step 1 comes out differently"]);
    forge(&lab, "sessions.jsonl", "\"seed\":1", "\"seed\":0");
    // Another text.
    forge(&lab, "../text.txt", "green", "grain");
    lab.run(&["replay", "run"]).fails(1, &["the data are not those", "--data"]);
    forge(&lab, "../text.txt", "grain", "green");
    fs::rename(lab.path("text.txt"), lab.path("moved.txt")).unwrap();
    lab.run(&["replay", "run"]).fails(1, &["text.txt"]);
    lab.run(&["replay", "run", "--data", "moved.txt"]).succeeds();
    fs::remove_file(lab.path("run/sessions.jsonl")).unwrap();
    lab.run(&["replay", "run", "--data", "moved.txt"]).fails(1, &["sessions.jsonl"]);
}
