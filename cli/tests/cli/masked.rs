//! Models of masked diffusion.

use super::*;

const KINDS: [&str; 3] = ["mdlm", "sedd", "md4"];

/// A run of each kind, in the folder of its name.
fn trained() -> Lab {
    let lab = Lab::new();
    for kind in KINDS {
        lab.train(kind, &[&format!("model.kind={kind}"), "train.steps=3"]).succeeds();
    }
    lab
}

#[test]
fn an_audit_says_what_is_a_bound_and_checks_the_estimate() {
    let lab = trained();
    for kind in KINDS {
        let audit = format!("audit {kind} --limit 2 --samples 2 --json audit.json");
        let said = lab.ltm(&audit).succeeds();
        said.says("is it a bound? | no: it leaves out times | by enumeration of all masks and by draws | of the validation text");
        let json = json(lab.read("audit.json"));
        let toys = json["toys"].as_array().unwrap();
        assert!(!toys.is_empty() && json["rows"][0]["protocol"] == "bound", "{json}");
        for toy in toys {
            let [nelbo, estimate, error] =
                ["nelbo", "estimate", "estimate_error"].map(|key| toy[key].as_f64().unwrap());
            assert!((nelbo - estimate).abs() < 5.0 * error + 1e-3 && error < 0.1 * nelbo, "{kind}: {toy}");
            assert_eq!(toy["nll"].as_f64().is_some_and(|nll| nll < nelbo), kind == "mdlm", "{toy}");
        }
        lab.ltm(&format!("{audit} --against {kind}")).fails(2, &["has no ledger", "--against"]);
    }
}

/// A file whose tensors have other shapes, or names that change places, is refused before it can judge the build.
#[test]
fn golden_numbers_of_other_shapes_are_refused() {
    let lab = Lab::new();
    let golden =
        fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/diffusion_tiny.safetensors")).unwrap();
    let data = 8 + u64::from_le_bytes(golden[..8].try_into().unwrap()) as usize;
    let header = json(&golden[8..data]);
    let refused = |change: &dyn Fn(&mut serde_json::Value), error: &str| {
        let mut header = header.clone();
        change(&mut header);
        let header = header.to_string();
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &golden[data..]].concat();
        lab.write("golden.safetensors", bytes);
        lab.ltm("verify --golden golden.safetensors").fails(1, &["golden.safetensors: tensor", error]);
    };
    for (name, shape) in [("lengths", [2, 2]), ("sigma.tau", [1, 4]), ("mdlm.masked", [2, 24])] {
        let error = format!("\"{name}\" has shape {shape:?}, expected");
        refused(&|header| header[name]["shape"] = shape.as_slice().into(), &error);
    }
    let swap = |header: &mut serde_json::Value| {
        let nats = header["mdlm.nats"].take();
        header["mdlm.nats"] = std::mem::replace(&mut header["mdlm.positions"], nats);
    };
    refused(&swap, "\"mdlm.positions\" has 4 numbers, expected 48");
}

#[test]
fn an_evaluation_marks_every_bound() {
    let lab = trained();
    lab.train("ar", &["model.kind=ar", "train.steps=3"]).succeeds();
    let prefix = |run: &str| {
        let said = lab.ltm(&format!("eval {run} --protocol prefix --draws 2 --limit 2")).succeeds();
        said.out.lines().find(|line| line.starts_with("prefix")).unwrap().to_string()
    };
    let (bound, exact) = (prefix("mdlm"), prefix("ar"));
    assert!(bound.contains("second half, upper bound") && bound.contains('≤'), "{bound}");
    assert!(exact.contains("second half, exact") && !exact.contains('≤'), "{exact}");
    // A single sequence has no error over sequences, but its draws have one.
    let said = lab.ltm("eval mdlm --protocol bound --draws 2 --limit 1").succeeds();
    said.says("± – | ± is one standard error over sequences; that of the draws is");
    assert!(!lab.ltm("eval ar --limit 1").succeeds().out.contains("of the draws"));
    let report = |run: &str| {
        lab.ltm(&format!("report {run} --limit 1 --samples 0 --out page.html")).succeeds();
        lab.read("page.html").contains("is an estimate of it by draws of masks")
    };
    assert!(report("sedd") && !report("ar"), "the page explains the protocols of the models that it shows");
}
