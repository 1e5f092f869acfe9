//! A run can be repeated from what it recorded, and what it recorded cannot be changed unnoticed.

use super::*;
use ltm::json::{self, Value};

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
    let record = json::parse(text.trim()).unwrap();
    let part = |group: &str, key: &str| record.field(group).unwrap().read(key, Value::as_str).unwrap().to_string();
    assert_eq!(part("program", "sources").len(), 64);
    assert!(part("program", "compiler").starts_with("rustc 1."), "{text}");
    assert!(!part("machine", "processor").is_empty() && !part("machine", "feature_used").is_empty());
    let file = &record.field("data").unwrap().read("files", Value::as_array).unwrap()[0];

    let sum = ltm::hash::hex(&ltm::hash::sha256(&fs::read(lab.path("text.txt")).unwrap()));
    assert_eq!(file.read("sha256", Value::as_str).unwrap(), sum);
    let config = json::parse(fs::read(lab.path("run/config.json")).unwrap()).unwrap();
    for (key, value) in record.field("config").unwrap().as_object().unwrap() {
        assert_eq!(config.get(key), Some(value));
    }
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
    let value = json::parse(third).unwrap();
    // The last bit of a number, and of the state's checksum.
    let norm = value.read("grad_norm", Value::as_f64).unwrap();
    let next = f64::from_bits(norm.to_bits() ^ 1);
    forge(&lab, "metrics.jsonl", &format!("\"grad_norm\":{norm:?}"), &format!("\"grad_norm\":{next:?}"));
    lab.run(&["replay", "run", "--steps", "3..3"]).fails(1, &["step 3 comes out differently", "grad_norm"]);
    forge(&lab, "metrics.jsonl", &format!("\"grad_norm\":{next:?}"), &format!("\"grad_norm\":{norm:?}"));
    let state = value.read("state", Value::as_str).unwrap();
    let other = format!("{:016x}", u64::from_str_radix(state, 16).unwrap() ^ 1);
    forge(&lab, "metrics.jsonl", state, &other);
    lab.run(&["replay", "run", "--steps", "3..3"]).fails(1, &["step 3 comes out differently", "state", &other]);
    lab.run(&["replay", "run", "--steps", "5..6"]).succeeds();
    // The last bit of a validation.
    let line = metrics.lines().rfind(|line| line.contains("\"protocol\"")).unwrap();
    let loss = json::parse(line).unwrap().read("loss", Value::as_f64).unwrap();
    let next = f64::from_bits(loss.to_bits() ^ 1);
    let (was, forged) = (format!("\"loss\":{loss:?}"), format!("\"loss\":{next:?}"));
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
    forge(&lab, "metrics.jsonl", &other, state);
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
