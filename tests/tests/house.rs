//! The house as a whole: which of our crates uses which, how many packages of others they bring with them, and whether README
//! shows code that compiles.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every crate that others are built from, with those that it may use.
const MAY_USE: [(&str, &[&str]); 7] = [
    ("engine", &[]),
    ("kernels", &["engine"]),
    ("autograd", &["engine"]),
    ("gradtest", &["engine", "kernels", "autograd"]),
    ("ltm", &["engine", "kernels", "autograd"]),
    ("lab", &["engine", "kernels", "autograd", "ltm"]),
    ("cli", &["engine", "kernels", "autograd", "ltm", "lab"]),
];

/// How many packages of others these may bring.
const MOST: [(&[&str], usize); 2] = [(&["engine", "kernels", "autograd"], 22), (&["ltm"], 40)];

/// Every package with what it uses in a build on Linux, tests aside; ours by name, those of others by name and version.
fn packages() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let named = |package: &Value| match &package["source"] {
        Value::Null => text(&package["name"]),
        _ => format!("{} {}", text(&package["name"]), text(&package["version"])),
    };
    let packages = list(&metadata["packages"]);
    let names: BTreeMap<_, _> = packages.iter().map(|package| (text(&package["id"]), named(package))).collect();
    let is_normal = |used: &Value| list(&used["dep_kinds"]).iter().any(|kind| kind["kind"].is_null());
    let nodes = list(&metadata["resolve"]["nodes"]);
    let uses = |node: &Value| {
        let used = list(&node["deps"]).into_iter().filter(is_normal);
        (names[&text(&node["id"])].clone(), used.map(|used| names[&text(&used["pkg"])].clone()).collect())
    };
    nodes.iter().map(uses).collect()
}

#[test]
fn crates_use_only_those_below_them() {
    let packages = packages();
    for (name, allowed) in MAY_USE {
        for used in packages[name].iter().filter(|used| !used.contains(' ')) {
            assert!(allowed.contains(&used.as_str()), "{name} uses {used}");
        }
    }
}

#[test]
fn crates_bring_few_packages_with_them() {
    let packages = packages();
    for (roots, most) in MOST {
        let mut waiting: Vec<&str> = roots.to_vec();
        let mut found = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            if found.insert(name) {
                waiting.extend(packages[name].iter().map(String::as_str));
            }
        }
        let others: Vec<_> = found.into_iter().filter(|name| name.contains(' ')).collect();
        assert!(others.iter().any(|name| name.starts_with("rayon ")), "{others:?}");
        assert!(others.len() <= most, "{roots:?} bring {} packages: {others:?}", others.len());
    }
}

#[test]
fn the_readme_is_short_and_shows_the_compiled_example() {
    let readme = include_str!("../../README.md");
    assert!(readme.lines().count() <= 150, "{} lines", readme.lines().count());
    for line in readme.lines() {
        assert!(line.chars().count() <= 120, "{} characters: {line}", line.chars().count());
    }
    let (_, shown) = readme.split_once("```rust\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    let example = include_str!("../../autograd/examples/gradient.rs");
    let mut compiled = example.lines().map(str::trim);
    for line in shown.lines().map(str::trim) {
        assert!(compiled.any(|compiled| compiled == line), "the example does not have, or not here: {line}");
    }
}
