//! How much there is, and where the compiler has to be trusted.

use crate::root;
use std::fs;
use std::path::{Path, PathBuf};

/// What is linked into the program, and what only tries it out, by the folders of their sources.
const LIBRARY: [(&str, &str); 6] = [
    ("engine", "engine/src"),
    ("kernels", "kernels/src"),
    ("autograd", "autograd/src"),
    ("ltm", "ltm/src"),
    ("lab", "lab/src"),
    ("cli", "cli/src"),
];
const AROUND: [(&str, &str); 3] = [("gradtest", "gradtest"), ("tests", "tests"), ("benches", "benches")];

/// Files of a kind below `folder`, sorted.
pub fn files(folder: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, kinds));
        } else if path.extension().is_some_and(|kind| kinds.iter().any(|k| kind == *k)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A path as seen from the workspace.
pub fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

pub fn lines() -> String {
    let mut text =
        "## Lines\n\nWith comments and tests, to the nearest hundred. The last three only try out the others.\n\n\
         | crate | Rust | CUDA |\n|---|---|---|\n"
            .to_string();
    for (name, folder) in LIBRARY.iter().chain(&AROUND) {
        let count = |kinds: &[&str]| -> usize {
            let files = files(&root().join(folder), kinds);
            files.iter().map(|path| fs::read_to_string(path).expect("a source").lines().count()).sum()
        };
        let rounded = |n: usize| match n {
            0 => "0".to_string(),
            n => format!("≈{}", (n + 50) / 100 * 100),
        };
        text.push_str(&format!("| {name} | {} | {} |\n", rounded(count(&["rs"])), rounded(count(&["cu", "cuh"]))));
    }
    text
}

/// One use of the word `unsafe`, by what it opens and what is said for it.
#[derive(PartialEq, Eq)]
struct Use {
    kind: &'static str,
    argument: String,
}

pub fn unsafe_code() -> String {
    let (library, blocks, with) = files_with_unsafe(&LIBRARY);
    let (around, blocks_around, with_around) = files_with_unsafe(&AROUND);
    // `deny` leaves room for the modules that say `allow` where they are declared.
    let root_of = |folder: &str| if folder.starts_with("cli") { "main.rs" } else { "lib.rs" };
    let roots = LIBRARY.iter().map(|(name, folder)| (name, format!("{folder}/{}", root_of(folder))));
    let roots = roots.chain([(&"gradtest", "gradtest/src/lib.rs".into()), (&"benches", "benches/ops.rs".into())]);
    let (mut forbidden, mut denied) = (Vec::new(), Vec::new());
    for (name, path) in roots {
        let source = fs::read_to_string(root().join(&path)).expect("a crate");
        let says = |word: &str| source.lines().any(|line| line == format!("#![{word}(unsafe_code)]"));
        match (says("forbid"), says("deny")) {
            (true, _) => forbidden.push(*name),
            (_, true) => denied.push(*name),
            _ => panic!("{path} neither forbids unsafe code nor denies it"),
        }
    }
    format!(
        "## Unsafe code\n\n{blocks} blocks in {with} files of the library, and {blocks_around} in {with_around} files of the tests. \
         Lints deny a block without an argument. A block in a macro counts once.\n\n\
         `#![forbid(unsafe_code)]` stands in: {}. `#![deny(unsafe_code)]`, with exceptions by module, in: {}.\n\
         {library}\n### In the tests\n{around}",
        forbidden.join(", "),
        denied.join(", ")
    )
}

/// The uses in every file of these crates, the number of blocks, and of files.
fn files_with_unsafe(crates: &[(&str, &str)]) -> (String, usize, usize) {
    let mut text = String::new();
    let (mut blocks, mut with) = (0, 0);
    for path in crates.iter().flat_map(|(_, folder)| files(&root().join(folder), &["rs"])) {
        let source = fs::read_to_string(&path).expect("a source");
        let uses = uses(&source, &path);
        if uses.is_empty() {
            continue;
        }
        let in_file: usize = uses.iter().filter(|(u, _)| u.kind == "block").map(|(_, n)| n).sum();
        blocks += in_file;
        with += 1;
        text.push_str(&format!("\n`{}`, blocks: {in_file}\n\n", short(&path)));
        for (u, times) in uses {
            let times = if times == 1 { String::new() } else { format!(" ×{times}") };
            text.push_str(&format!("- {}{times}: {}\n", u.kind, u.argument));
        }
    }
    (text, blocks, with)
}

/// All uses in a file in its order, and how often each in a row: an argument may refer to the one above.
fn uses(source: &str, path: &Path) -> Vec<(Use, usize)> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found: Vec<(Use, usize)> = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // One argument for many blocks, which refer to it.
        if line.starts_with("// SAFETY of") {
            let words = lines[at..]
                .iter()
                .take_while(|line| line.starts_with("//"))
                .map(|line| line.trim_start_matches('/').trim());
            let argument = words.collect::<Vec<_>>().join(" ");
            found.push((Use { kind: "for all below", argument }, 1));
        }
        let Some(kind) = kind(code) else { continue };
        let argument = match kind {
            "function" => said(&lines[..at], "/// # Safety", "///"),
            _ => said(&lines[..=at], "// SAFETY:", "//"),
        };
        // The functions of an implementation keep the contract of their trait.
        let argument = argument.unwrap_or_else(|| match kind {
            "function" => "the contract of the trait".into(),
            _ => panic!("{}:{}: no SAFETY argument", path.display(), at + 1),
        });
        let this = Use { kind, argument };
        match found.last_mut() {
            Some((last, times)) if *last == this => *times += 1,
            _ => found.push((this, 1)),
        }
    }
    found
}

fn kind(code: &str) -> Option<&'static str> {
    let rest = &code[code.find("unsafe ")? + "unsafe ".len()..];
    let opens = |word: &str| rest.trim_start().starts_with(word);
    match () {
        () if opens("{") => Some("block"),
        () if opens("impl") => Some("implementation"),
        // The type of a pointer to a foreign function does nothing.
        () if opens("extern") && !rest.contains(" fn(") => Some("foreign functions"),
        () if opens("fn") => Some("function"),
        () => None,
    }
}

/// The nearest comment above that begins with `mark`, on one line.
fn said(above: &[&str], mark: &str, comment: &str) -> Option<String> {
    let near = above.len().saturating_sub(12);
    let begin = near + above[near..].iter().rposition(|line| line.starts_with(mark))?;
    let lines = above[begin..].iter().take_while(|line| line.starts_with(comment));
    let words: Vec<&str> = lines.map(|line| line.trim_start_matches(mark).trim_start_matches('/').trim()).collect();
    Some(words.join(" ").trim().to_string())
}
