//! `ltm bench`: what it refuses before it measures, and one measurement kept, drawn and compared with.

use super::*;

#[test]
fn what_cannot_be_is_told_before_anything_is_measured() {
    let lab = Lab::new();
    lab.run(&["bench", "--op", "rmsnrm"]).fails(2, &["\"rmsnrm\", did you mean \"rmsnorm\"?", "steps"]);
    lab.run(&["bench", "--preset", "smal"]).fails(2, &["did you mean \"small\"?"]);
    lab.run(&["bench", "--dtype", "bf16", "--device", "cpu"]).fails(2, &["bf16 needs a GPU"]);
    lab.run(&["bench", "--compare", "none"]).fails(1, &["cannot read none"]);
    lab.run(&["bench", "--compare", "text.txt"]).fails(1, &["text.txt"]);
    lab.write("other.json", "{\"steps\": 3}");
    lab.run(&["bench", "--compare", "other.json"]).fails(1, &["other.json", "no report of `ltm bench`"]);
    for flag in ["--json", "--svg"] {
        lab.run(&["bench", flag, "no/such/file"]).fails(1, &["cannot write no/such/file"]);
    }
    assert_eq!(fs::read_dir(lab.0.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn a_measurement_is_kept_drawn_and_compared_with() {
    let lab = Lab::new();
    let small = ["bench", "--preset", "tiny", "--op", "sum", "--set", "model.seq=64", "model.dim=32"];
    let files = ["--json", "base", "--svg", "roof.svg"];
    let said = lab.run(&[&small[..], &["--threads", "1"], &files].concat());
    said.succeeds().says("1 threads").says("peak, f32").says("bandwidth").says("sum: all").says("forward");
    let all: serde_json::Value = serde_json::from_slice(&fs::read(lab.path("base")).unwrap()).unwrap();
    let rows = all["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["reached"].as_f64().unwrap() > 0.0) && !rows.is_empty());
    assert!(fs::read_to_string(lab.path("roof.svg")).unwrap().starts_with("<svg"));

    let again = lab.run(&[&small[..], &["--threads", "2", "--compare", "base"]].concat());
    again.succeeds().says("compared with base").says("rows compared").says("threads was 1, is 2");

    // Settings that change the work are told; the reference's gradient is work as well.
    let other = ["bench", "--preset", "tiny", "--threads", "1", "--compare", "base", "--op", "add", "--set"];
    let set = ["model.seq=64", "model.dim=32", "slow.gradient=trajectory"];
    lab.run(&[&other[..], &set].concat()).fails(1, &["base has none of these rows"]);
    let said = lab.run(&[&small[..], &["slow.gradient=trajectory", "--threads", "1", "--compare", "base"]].concat());
    said.succeeds().says("slow.gradient was final, is trajectory");
}
