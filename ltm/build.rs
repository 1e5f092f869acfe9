//! Records the build for run records: a hash of the sources, the checked-out commit, the compiler and its flags.

#![forbid(unsafe_code)]

use sha2::{Digest, Sha256};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources of the library and the program, relative to the root of the workspace.
const SOURCES: [&str; 8] = ["Cargo.toml", "Cargo.lock", "engine", "kernels", "autograd", "ltm", "lab", "cli"];

/// Of a crate's folder.
const PARTS: [&str; 3] = ["Cargo.toml", "build.rs", "src"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for name in SOURCES {
        let path = root.join(name);
        let parts = if path.is_dir() { PARTS.map(|part| path.join(part)).to_vec() } else { vec![path] };
        for part in parts.into_iter().filter(|part| part.exists()) {
            println!("cargo:rerun-if-changed={}", part.display());
            collect(&part, &mut files);
        }
    }
    tell("SOURCES", &hash_of(&root, &files));
    tell("COMMIT", &commit(&root));
    tell("COMPILER", &compiler());
    tell("TARGET", &variable("TARGET"));
    tell("PROFILE", &format!("{}, opt-level {}", variable("PROFILE"), variable("OPT_LEVEL")));
    tell("FLAGS", &variable("CARGO_ENCODED_RUSTFLAGS").replace('\x1f', " "));
}

fn tell(name: &str, value: &str) {
    println!("cargo:rustc-env=LTM_BUILD_{name}={value}");
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// All files below `path`, which may itself be a file.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if !path.is_dir() {
        return files.push(path.into());
    }
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("cannot list {}: {e}", path.display()));
    entries.flatten().for_each(|entry| collect(&entry.path(), files));
}

/// SHA-256 over name, length and content of every file, in the order of their names.
fn hash_of(root: &Path, files: &[PathBuf]) -> String {
    let name = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).to_string_lossy().replace('\\', "/");
    let mut named: Vec<_> = files.iter().map(|path| (name(path), path)).collect();
    named.sort();
    let mut hash = Sha256::new();
    for (name, path) in named {
        let content = fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        hash.update(format!("{name}\n{}\n", content.len()));
        hash.update(&content);
    }
    format!("{:x}", hash.finalize())
}

/// The checked-out commit; empty if unknown.
fn commit(root: &Path) -> String {
    let git = |arguments: &[&str]| output(Command::new("git").current_dir(root).args(arguments));
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return String::new() };
    match git(&[&["status", "--porcelain", "--"], &SOURCES[..]].concat()).as_deref() {
        Some("") => commit,
        _ => format!("{commit}, changed since"),
    }
}

fn compiler() -> String {
    let said = output(Command::new(variable("RUSTC")).arg("-vV")).unwrap_or_default();
    let llvm = said.lines().find(|line| line.starts_with("LLVM")).unwrap_or("LLVM unknown");
    format!("{}, {llvm}", said.lines().next().unwrap_or("unknown"))
}

fn output(command: &mut Command) -> Option<String> {
    let said = command.output().ok().filter(|said| said.status.success())?;
    Some(String::from_utf8_lossy(&said.stdout).trim().to_string())
}
