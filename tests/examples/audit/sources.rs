//! How much there is, and where the compiler has to be trusted.

use crate::root;
use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 4] = ["engine", "kernels", "autograd", "ltm"];

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
        "## Lines\n\nWith comments and tests, to the nearest hundred.\n\n| crate | Rust | CUDA |\n|---|---|---|\n"
            .to_string();
    for name in CRATES {
        let count = |kinds: &[&str]| -> usize {
            let files = files(&root().join(name).join("src"), kinds);
            files.iter().map(|path| fs::read_to_string(path).expect("a source").lines().count()).sum()
        };
        let rounded = |n: usize| match n {
            0 => "0".to_string(),
            n => format!("≈{}", n.div_ceil(100) * 100),
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
    let mut text = String::new();
    let (mut blocks, mut with) = (0, 0);
    for path in CRATES.iter().flat_map(|name| files(&root().join(name).join("src"), &["rs"])) {
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
    let forbidden = CRATES.iter().filter(|name| {
        fs::read_to_string(root().join(name).join("src/lib.rs")).expect("a library").contains("#![forbid(unsafe_code)]")
    });
    let forbidden: Vec<&str> = forbidden.copied().collect();
    format!(
        "## Unsafe code\n\n{blocks} blocks in {with} files. Lints deny a block without an argument. A block in a macro counts once. \
         `#![forbid(unsafe_code)]` stands in: {}.\n{text}",
        forbidden.join(", ")
    )
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
        () if opens("extern") => Some("foreign functions"),
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
