//! The dependencies of our crates, from `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A package, ours or another's.
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Licence.
    pub licence: String,
    /// Whether it is part of this workspace.
    pub is_ours: bool,
    /// Whether it is a macro, which only the compiler runs.
    pub is_macro: bool,
    /// Whether it has a build script.
    pub has_build_script: bool,
    /// Its dependencies without those of tests, by the names of [`packages`].
    pub uses: BTreeSet<String>,
}

/// All packages: ours by name, others by name and version. `arguments` go to cargo. `kinds` selects dependencies:
/// `null` for linked ones, `"build"` for those of build scripts.
pub fn packages(arguments: &[&str], kinds: &[Value]) -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version=1"])
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or("not said").to_string();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let mut packages = BTreeMap::new();
    let mut names = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let kinds: Vec<Value> = list(&package["targets"]).iter().flat_map(|target| list(&target["kind"])).collect();
        let of = Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            is_ours: package["source"].is_null(),
            is_macro: kinds.contains(&"proc-macro".into()),
            has_build_script: kinds.contains(&"custom-build".into()),
            uses: BTreeSet::new(),
        };
        let name = if of.is_ours { of.name.clone() } else { format!("{} {}", of.name, of.version) };
        names.insert(text(&package["id"]), name.clone());
        packages.insert(name, of);
    }
    for node in list(&metadata["resolve"]["nodes"]) {
        let counts = |used: &Value| list(&used["dep_kinds"]).iter().any(|kind| kinds.contains(&kind["kind"]));
        let uses =
            list(&node["deps"]).into_iter().filter(counts).map(|used| names[&text(&used["pkg"])].clone()).collect();
        packages.get_mut(&names[&text(&node["id"])]).expect("a package").uses = uses;
    }
    packages
}

/// These packages and all their dependencies for which `counts` returns true.
pub fn closure<'a>(
    packages: &'a BTreeMap<String, Package>,
    roots: &[&'a str],
    counts: impl Fn(&Package) -> bool,
) -> BTreeSet<&'a str> {
    let mut waiting = roots.to_vec();
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        if counts(&packages[name]) && found.insert(name) {
            waiting.extend(packages[name].uses.iter().map(String::as_str));
        }
    }
    found
}
