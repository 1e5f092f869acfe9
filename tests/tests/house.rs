//! Checks of the workspace: which of our crates uses which, how many external packages they need, what the packages of
//! those for other programs hold, and that the README shows code that compiles.

use std::process::Command;
use tests::packages::{closure, packages};

/// Each of our crates, with the crates that it may use.
const MAY_USE: [(&str, &[&str]); 9] = [
    ("engine", &[]),
    ("roofline", &["engine"]),
    ("kernels", &["engine"]),
    ("autograd", &["engine", "kernels"]),
    ("gradtest", &["engine", "autograd"]),
    ("ltm", &["engine", "kernels", "autograd"]),
    ("lab", &["engine", "roofline", "kernels", "autograd", "ltm"]),
    ("serve", &["engine", "ltm"]),
    ("cli", &["engine", "roofline", "kernels", "autograd", "ltm", "lab", "serve"]),
];

/// The largest number of external packages that these may need.
const MOST: [(&[&str], usize); 2] = [(&["engine", "kernels", "autograd"], 22), (&["ltm"], 40)];

#[test]
fn crates_use_only_those_below_them_and_few_of_others() {
    // The dependencies linked in a build on Linux.
    let packages = packages(&["--offline", "--filter-platform=x86_64-unknown-linux-gnu"], &[().into()]);
    for (name, allowed) in MAY_USE {
        for used in packages[name].uses.iter().filter(|used| packages[*used].is_ours) {
            assert!(allowed.contains(&used.as_str()), "{name} uses {used}");
        }
    }
    for (roots, most) in MOST {
        let mut others = closure(&packages, roots, |_| true);
        others.retain(|name| !packages[*name].is_ours);
        assert!(others.iter().any(|name| name.starts_with("rayon ")), "{others:?}");
        assert!(others.len() <= most, "{roots:?} need {} packages: {others:?}", others.len());
    }
}

/// The crates for other programs hold their sources, README and licence, and no stray file.
#[test]
fn packages_are_fit_to_publish() {
    for name in ["engine", "kernels", "autograd", "gradtest", "roofline"] {
        let output = Command::new(env!("CARGO"))
            .args(["package", "--list", "--quiet", "--offline", "--allow-dirty", "-p", name])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let files = String::from_utf8(output.stdout).expect("names");
        let files: Vec<&str> = files.lines().collect();
        let made = [".cargo_vcs_info.json", "Cargo.lock", "Cargo.toml", "Cargo.toml.orig"];
        let is_source = |file: &str| {
            let folder = ["src/", "tests/", "examples/"].iter().any(|folder| file.starts_with(folder));
            folder && [".rs", ".cu", ".cuh"].iter().any(|end| file.ends_with(end))
        };
        let others: Vec<&str> = files.into_iter().filter(|file| !made.contains(file) && !is_source(file)).collect();
        assert_eq!(others, ["LICENSE", "README.md"], "{name}");
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
        assert!(compiled.any(|compiled| compiled == line), "the example lacks this line, or has it elsewhere: {line}");
    }
}
