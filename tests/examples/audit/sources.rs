//! Lists unsafe code.

use crate::root;
use std::fs;
use std::path::{Path, PathBuf};

/// The source folders of the crates that are linked into the program, and of those that only test it.
const LIBRARY: [&str; 6] = ["engine/src", "kernels/src", "autograd/src", "ltm/src", "lab/src", "cli/src"];
const AROUND: [&str; 3] = ["gradtest", "tests", "benches"];

/// The name of a crate by its folder.
fn name(folder: &str) -> &str {
    folder.trim_end_matches("/src")
}

/// Every Rust file below a folder of the workspace, sorted by path: the relative path, and the text.
pub fn files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(folder)];
    while let Some(folder) = waiting.pop() {
        let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
            fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()).partition(|path| path.is_dir());
        waiting.extend(folders);
        found.extend(files.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs")));
    }
    found.sort();
    let short = |path: &Path| path.strip_prefix(root()).unwrap_or(path).display().to_string();
    found.iter().map(|path| (short(path), fs::read_to_string(path).expect("a source"))).collect()
}

pub fn unsafe_code() -> String {
    let (library, blocks, with) = files_with_unsafe(&LIBRARY);
    let (around, blocks_around, with_around) = files_with_unsafe(&AROUND);
    let (mut forbidden, mut denied) = (Vec::new(), Vec::new());
    for folder in LIBRARY.into_iter().chain(["gradtest/src", "benches"]) {
        let roots = ["lib.rs", "main.rs", "ops.rs"]
            .map(|file| fs::read_to_string(root().join(folder).join(file)).unwrap_or_default());
        let says = |word: &str| roots.iter().any(|text| text.contains(&format!("#![{word}(unsafe_code)]\n")));
        // `deny` permits exceptions: modules with `allow` at their declaration.
        let list = if says("forbid") { &mut forbidden } else { &mut denied };
        assert!(says("forbid") || says("deny"), "{folder} neither forbids unsafe code nor denies it");
        list.push(name(folder));
    }
    format!(
        "## Unsafe code\n\n{blocks} blocks in {with} files of the library, and {blocks_around} in {with_around} files of the tests. \
         Lints refuse a block without a SAFETY comment. A block in a macro counts once.\n\n\
         These crates have `#![forbid(unsafe_code)]`: {}. These have `#![deny(unsafe_code)]`, with exceptions by module: {}.\n\
         {library}\n### In the tests\n{around}",
        forbidden.join(", "),
        denied.join(", ")
    )
}

/// The uses in every file of these crates, the number of blocks, and of files.
fn files_with_unsafe(crates: &[&str]) -> (String, usize, usize) {
    let mut text = String::new();
    let (mut blocks, mut with) = (0, 0);
    for (path, source) in crates.iter().flat_map(|folder| files(folder)) {
        let uses = uses(&source, &path);
        if uses.is_empty() {
            continue;
        }
        let in_file = uses.iter().filter(|(kind, _)| *kind == "block").count();
        blocks += in_file;
        with += 1;
        text.push_str(&format!("\n`{path}`, blocks: {in_file}\n\n"));
        uses.iter().for_each(|(kind, argument)| text.push_str(&format!("- {kind}: {argument}\n")));
    }
    (text, blocks, with)
}

/// Every use of the word `unsafe` in a file: its kind, and its justification.
fn uses(source: &str, path: &str) -> Vec<(&'static str, String)> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let Some((_, opened)) = code.split_once("unsafe ") else { continue };
        let kinds = [("{", "block"), ("impl", "implementation"), ("fn", "function")];
        let Some((_, kind)) = kinds.into_iter().find(|(word, _)| opened.starts_with(word)) else { continue };
        let argument = match kind {
            // The functions of an implementation have the contract of their trait.
            "function" => said(&lines[..at], "/// # Safety").unwrap_or("the contract of the trait".into()),
            _ => said(&lines[..=at], "// SAFETY:").unwrap_or_else(|| panic!("{path}:{}: no SAFETY argument", at + 1)),
        };
        found.push((kind, argument));
    }
    found
}

/// The nearest comment above that begins with `mark`, on one line.
fn said(above: &[&str], mark: &str) -> Option<String> {
    let near = &above[above.len().saturating_sub(12)..];
    let begin = near.iter().rposition(|line| line.starts_with(mark))?;
    let lines = near[begin..].iter().take_while(|line| line.starts_with("//"));
    let words: Vec<&str> = lines.map(|line| line.trim_start_matches(mark).trim_start_matches('/').trim()).collect();
    Some(words.join(" ").trim().to_string())
}
