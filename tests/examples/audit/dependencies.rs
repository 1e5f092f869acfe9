//! Every package that the library is built with.

use crate::root;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tests::packages::{closure, packages};

pub fn section() -> String {
    let (packages, reasons) = (packages(&[], &[().into(), "build".into()]), reasons());
    let all = closure(&packages, &["ltm"], |_| true);
    let linked = closure(&packages, &["ltm"], |package| !package.is_macro);
    let (ours, others): (Vec<&str>, Vec<&str>) = all.iter().partition(|&&name| packages[name].is_ours);
    let mut text = format!(
        "## Dependencies of the library\n\n`engine`, `kernels`, `autograd` and `ltm` depend on {} packages, on all platforms together, including those that only the compiler runs.\n\n\
         | package | version | licence | purpose | build script |\n|---|---|---|---|---|\n",
        others.len()
    );
    for key in others {
        let package = &packages[key];
        let name = &package.name;
        let mut why = if ours.iter().any(|&user| packages[user].uses.contains(key)) {
            let reason = reasons.get(name).cloned();
            reason.unwrap_or_else(|| panic!("Cargo.toml needs a comment above {name} that says why it is there"))
        } else {
            let users = all.iter().map(|&user| &packages[user]).filter(|user| user.uses.contains(key));
            let users: BTreeSet<&str> = users.map(|user| user.name.as_str()).collect();
            format!("needed by {}", Vec::from_iter(users).join(", "))
        };
        if !linked.contains(key) {
            why.push_str("; only the compiler runs it");
        }
        let script = if package.has_build_script { "yes" } else { "no" };
        text.push_str(&format!("| {name} | {} | {} | {why} | {script} |\n", package.version, package.licence));
    }
    text
}

/// The comments above the dependencies in our manifests.
fn reasons() -> BTreeMap<String, String> {
    let mut reasons = BTreeMap::new();
    for manifest in ["ltm", "engine", "kernels", "autograd", "."] {
        let text = fs::read_to_string(root().join(manifest).join("Cargo.toml")).expect("a manifest");
        let mut comment = String::new();
        for line in text.lines() {
            match (line.strip_prefix("# "), line.split_once([' ', '.', '='])) {
                (Some(words), _) => comment = [comment.trim_end(), words].join(" ").trim().to_string(),
                (None, Some((name, _))) if !comment.is_empty() => {
                    reasons.insert(name.to_string(), std::mem::take(&mut comment).trim_end_matches('.').to_string());
                }
                _ => comment.clear(),
            }
        }
    }
    reasons
}
