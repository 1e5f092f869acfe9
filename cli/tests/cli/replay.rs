//! A run can be repeated from its records, and changes of the records are detected.

use super::*;
use ltm::hash::sha256;
use ltm::json;
use ltm::run::{Record, Run, StepLine, ValidationLine};

/// Replaces the first occurrence of `find` in a file.
fn forge(lab: &Lab, file: &str, find: &str, replace: &str) {
    let text = lab.read(file);
    assert!(text.contains(find), "no {find:?} in {text}");
    lab.write(file, text.replacen(find, replace, 1));
}

#[test]
fn a_stretch_is_repeated_bit_for_bit() {
    let lab = Lab::trained();
    let Record { program, machine, data, config, .. } = json::from_bytes(lab.read("run/sessions.jsonl")).unwrap();
    assert!(program.sources.len() == 64 && program.compiler.starts_with("rustc 1."), "{program:?}");
    assert!(!machine.processor.is_empty() && !machine.feature_used.is_empty());
    assert_eq!(data.files[0].file.sha256, sha256(lab.read("text.txt")));
    assert_eq!(config, Run::open(&lab.path("run")).unwrap().config);

    // Checkpoints after steps 2, 4 and 6.
    let all = lab.ltm("replay run").succeeds();
    all.says("steps 1..6 repeated, all bits are the same").says("from the initial weights");
    all.says("after 6 of 6 steps by checksum").says("the checkpoints of steps 2, 4, 6 byte for byte");
    let said = lab.ltm("--threads 3 replay run --steps 3..4").succeeds();
    said.says("steps 3..4 from the checkpoint of step 2")
        .says("after 2 of 2 steps")
        .says("the checkpoint of step 4 byte for byte");
    lab.refuses(2, &[("replay run --steps 5..7", "5..7 | steps 1..6"), ("replay run --steps 5", "FIRST..LAST")]);
    lab.refuses(1, &[("replay text.txt", "text.txt")]);

    // After a resume with another end of the schedules, every step is repeated with its own settings.
    lab.ltm("train --resume run --set train.steps=9").succeeds();
    lab.ltm("replay run").succeeds().says("steps 1..9 repeated");
    lab.ltm("replay run --steps 7..7").succeeds().says("step 7 repeated");
    fs::remove_dir_all(lab.path("run/checkpoints")).unwrap();
    lab.ltm("replay run").succeeds().says("steps 1..9 repeated").says("after 9 of 9 steps");
}

#[test]
fn what_was_recorded_cannot_be_changed_unnoticed() {
    let lab = Lab::trained();
    let metrics = lab.read("run/metrics.jsonl");
    let third = metrics.lines().find(|line| line.contains("\"step\":3,")).unwrap();
    let StepLine { grad_norm, state, .. } = json::from_bytes(third).unwrap();
    let last = metrics.lines().rfind(|line| line.contains("\"protocol\"")).unwrap();
    let loss = json::from_bytes::<ValidationLine>(last).unwrap().cost.loss;
    // The last bit of a number.
    let entry = |name: &str, x: f64| format!("\"{name}\":{}", json::line(&x));
    let other = |name: &str, x: f64| (entry(name, x), entry(name, f64::from_bits(x.to_bits() ^ 1)));
    let state = state.unwrap();
    let other_state = format!("{:016x}", u64::from_str_radix(&state, 16).unwrap() ^ 1);
    let metrics = "run/metrics.jsonl";
    let third = "step 3 differs";
    for (file, (was, forged), stretch, parts) in [
        (metrics, other("grad_norm", grad_norm), "3..3", [third, "grad_norm"]),
        (metrics, other("loss", loss), "5..6", ["the validation after step 6 differs", "loss"]),
        (metrics, (state, other_state.clone()), "3..3", [third, &*other_state]),
        (metrics, ("\"step\":6,\"l".into(), "\"step\":0,\"l".into()), "6..6", ["the metrics", "have no step 6"]),
        // Another seed, written into the record afterwards.
        ("run/sessions.jsonl", ("\"seed\":0".into(), "\"seed\":1".into()), "1..1", ["step 1", "differs"]),
        ("text.txt", ("green".into(), "grain".into()), "1..6", ["text.txt has different content", "--data"]),
    ] {
        forge(&lab, file, &was, &forged);
        lab.ltm(&format!("replay run --steps {stretch}")).fails(1, &parts);
        forge(&lab, file, &forged, &was);
    }
    let flip = || {
        lab.change("run/checkpoints/step-00000006/weights.safetensors", |bytes| *bytes.last_mut().unwrap() ^= 1);
    };
    flip();
    lab.refuses(1, &[("replay run --steps 5..6", "step-00000006 | weights.safetensors")]);
    flip();
    lab.ltm("replay run --steps 5..6").succeeds();
    fs::rename(lab.path("text.txt"), lab.path("moved.txt")).unwrap();
    lab.refuses(1, &[("replay run", "text.txt")]);
    lab.ltm("replay run --data moved.txt").succeeds();
    fs::remove_file(lab.path("run/sessions.jsonl")).unwrap();
    lab.refuses(1, &[("replay run --data moved.txt", "sessions.jsonl")]);
}
