//! `ltm bench`: errors before measuring, and one measurement saved, drawn and compared.

use super::*;

#[test]
fn what_cannot_be_is_told_before_anything_is_measured() {
    let lab = Lab::new();
    lab.write("other.json", "{\"steps\": 3}");
    let cases = [
        ("bench --op rmsnrm", "\"rmsnrm\", did you mean \"rmsnorm\"? | steps"),
        ("bench --preset smal", "did you mean \"small\"?"),
        ("bench --against ltm --json b", "--against | cannot be used with"),
    ];
    lab.refuses(2, &cases);
    let cases = [
        ("bench --compare none", "cannot read none"),
        ("bench --compare text.txt", "text.txt"),
        ("bench --compare other.json", "other.json | not a version | report of measured times"),
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
    said.says("1 threads | peak, f32 | bandwidth of memory | sum: all | forward");
    let all = json(lab.read("base"));
    let rows = all["rows"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["reached"].as_f64().unwrap() > 0.0) && !rows.is_empty());
    assert!(lab.read("roof.svg").starts_with("<svg"));

    // Other conditions are refused before anything is measured.
    let other = "base: times of other";
    bench("--op sum --threads 2 --compare base").fails(1, &[other, "threads was 1, is 2"]);
    bench("--op sum --threads 1 --set model.seq=65 --compare base")
        .fails(1, &[other, "sizes was", "64 tokens", "65 tokens"]);
    bench("--op sum --threads 1 --dtype bf16 --compare base").fails(1, &[other, "precision was f32, is bf16"]);
    // Reports settings that change the work; the reference's gradient is also work.
    let trajectory = "slow.gradient=trajectory --threads 1 --compare base";
    bench(&format!("{trajectory} --op add")).fails(1, &["base: no row is in both runs"]);
    // Exit code 3 says that a row is slower: than in a file in which everything took no time.
    let mut fast = all.clone();
    for row in fast["rows"].as_array_mut().unwrap() {
        for pass in row["times"].as_array_mut().unwrap() {
            pass.as_array_mut().unwrap().iter_mut().for_each(|time| *time = (1e-3 * time.as_f64().unwrap()).into());
        }
    }
    lab.write("fast", fast.to_string());
    let slower = bench(&format!("{} --op sum", trajectory.replace("base", "fast")));
    assert_eq!(slower.code, Some(3), "{}", slower.context());
    slower.says("compared with fast | slow.gradient was final, is trajectory | slower");
}

#[test]
fn two_programs_are_measured_in_turns() {
    let lab = Lab::new();
    let program = env!("CARGO_BIN_EXE_ltm");
    let bench = "bench --preset tiny --set model.seq=64 model.dim=32 --op sum --threads 1";
    // The same program is hardly ever slower than itself, but this machine may be busy.
    let said = lab.ltm(&format!("{bench} --against {program}"));
    said.says("in turns with | sum: all | verdict | rows:");
    lab.ltm(&format!("{bench} --against no/such/program")).fails(1, &["cannot start no/such/program"]);
    lab.ltm(&format!("{bench} --against /bin/true")).fails(1, &["/bin/true does not measure in turns"]);
}
