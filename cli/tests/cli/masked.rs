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
