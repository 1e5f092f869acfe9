//! Every package that the library is built with.

use crate::root;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::process::Command;

const OURS: [&str; 4] = ["ltm", "engine", "kernels", "autograd"];

/// A package of the tree.
#[derive(Default)]
struct Package {
    /// Names of those that ask for it.
    parents: BTreeSet<String>,
    /// Whether some of it is linked, and not only run by the compiler.
    is_linked: bool,
}

/// What `cargo metadata` says about one.
struct Facts {
    licence: String,
    has_build_script: bool,
}

pub fn section() -> String {
    let (tree, facts, reasons) = (tree(), facts(), reasons());
    let mut text = format!(
        "## Dependencies of the library\n\nOf `engine`, `kernels`, `autograd` and `ltm`, on all platforms together, with what only the compiler runs: {} packages.\n\n\
         | package | version | licence | why it is there | build script |\n|---|---|---|---|---|\n",
        tree.len()
    );
    for ((name, version), package) in &tree {
        let by: Vec<&str> = package.parents.iter().map(String::as_str).collect();
        let direct = by.iter().any(|parent| OURS.contains(parent));
        let mut why = match reasons.get(name.as_str()).filter(|_| direct) {
            Some(reason) => reason.clone(),
            None => {
                assert!(!direct, "say in Cargo.toml, in a comment above {name}, why it is there");
                format!("brought by {}", by.join(", "))
            }
        };
        if !package.is_linked {
            why.push_str("; runs in the compiler only");
        }
        let facts = &facts[&(name.clone(), version.clone())];
        let script = if facts.has_build_script { "yes" } else { "no" };
        text.push_str(&format!("| {name} | {version} | {} | {why} | {script} |\n", facts.licence));
    }
    text
}

fn cargo(arguments: &[&str]) -> String {
    let said = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    String::from_utf8(said.stdout).expect("UTF-8")
}

/// Everything below the library, by name and version.
fn tree() -> BTreeMap<(String, String), Package> {
    let text = cargo(&[
        "tree",
        "--locked",
        "-p",
        "ltm",
        "--edges",
        "normal,build",
        "--target",
        "all",
        "--no-dedupe",
        "--prefix",
        "depth",
        "--format",
        " {p}",
    ]);
    let mut found: BTreeMap<(String, String), Package> = BTreeMap::new();
    // Names on the way to the present line, and whether the compiler runs them.
    let mut path: Vec<(String, bool)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let depth: usize = words.next().and_then(|word| word.parse().ok()).expect("a depth");
        let (name, version) = (words.next().expect("a name"), words.next().expect("a version"));
        path.truncate(depth);
        let parent = path.last().cloned();
        let in_compiler = line.contains("(proc-macro)") || parent.as_ref().is_some_and(|(_, in_compiler)| *in_compiler);
        path.push((name.to_string(), in_compiler));
        if OURS.contains(&name) {
            continue;
        }
        let package = found.entry((name.into(), version.trim_start_matches('v').into())).or_default();
        package.parents.extend(parent.map(|(name, _)| name));
        package.is_linked |= !in_compiler;
    }
    found
}

fn facts() -> HashMap<(String, String), Facts> {
    let metadata = cargo(&["metadata", "--locked", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or("not said").to_string();
    let scripts = |targets: &Value| targets.as_array().into_iter().flatten().any(|t| t["kind"][0] == "custom-build");
    let packages = metadata["packages"].as_array().expect("packages").iter();
    let facts = packages.map(|package| {
        let facts = Facts { licence: text(&package["license"]), has_build_script: scripts(&package["targets"]) };
        ((text(&package["name"]), text(&package["version"])), facts)
    });
    facts.collect()
}

/// The comments above the dependencies in our manifests.
fn reasons() -> HashMap<String, String> {
    let mut reasons = HashMap::new();
    let manifests = OURS.map(|name| root().join(name).join("Cargo.toml"));
    for path in manifests.into_iter().chain([root().join("Cargo.toml")]) {
        let text = fs::read_to_string(&path).expect("a manifest");
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
