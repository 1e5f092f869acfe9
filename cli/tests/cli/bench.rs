//! `ltm bench`: errors before measuring, and one measurement saved, drawn and compared.

use super::*;

#[test]
fn what_cannot_be_is_told_before_anything_is_measured() {
    let lab = Lab::new();
    lab.write("other.json", "{\"steps\": 3}");
    let cases = [
        ("bench --op rmsnrm", "\"rmsnrm\", did you mean \"rmsnorm\"? | steps"),
        ("bench --preset smal", "did you mean \"small\"?"),
    ];
    lab.refuses(2, &cases);
    let cases = [
        ("bench --compare none", "cannot read none"),
        ("bench --compare text.txt", "text.txt"),
        ("bench --compare other.json", "other.json | not a version | report of `ltm bench`"),
        ("bench --json no/such/file", "cannot write no/such/file"),
        ("bench --svg text.txt", "cannot write text.txt: it exists and does not end in .svg"),
        ("bench --svg no/such/file", "cannot write no/such/file"),
    ];
    lab.refuses(1, &cases);
    assert_eq!(lab.names("."), ["other.json", "text.txt"], "nothing is left behind");
}

#[test]
fn a_measurement_is_kept_drawn_and_compared_with() {
    let lab = Lab::new();
    let bench = |rest: &str| lab.ltm(&format!("bench --preset tiny --set model.seq=64 model.dim=32 {rest}"));
    let said = bench("--op sum --threads 1 --json base --svg roof.svg").succeeds();
    said.says("1 threads | peak, f32 | bandwidth | sum: all | forward");
    let all = json(lab.read("base"));
    let rows = all["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["reached"].as_f64().unwrap() > 0.0) && !rows.is_empty());
    assert!(lab.read("roof.svg").starts_with("<svg"));

    bench("--op sum --threads 2 --compare base")
        .succeeds()
        .says("compared with base | rows compared | threads was 1, is 2");
    // Reports settings that change the work; the reference's gradient is also work.
    let trajectory = "slow.gradient=trajectory --threads 1 --compare base";
    bench(&format!("{trajectory} --op add")).fails(1, &["base has none of these rows"]);
    bench(&format!("{trajectory} --op sum")).succeeds().says("slow.gradient was final, is trajectory");
}
