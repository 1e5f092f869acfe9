//! The library part depends on half, rand, rayon, bytemuck, memmap2, cudarc, and what they bring; on nothing else.

use std::process::Command;

#[test]
fn the_library_depends_on_little() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "depth", "-p", "ltm", "--no-default-features"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let ours = ["ltm", "engine", "kernels", "autograd"];
    let allowed = ["half", "rand", "rayon", "bytemuck", "memmap2", "cudarc"];
    // Depth and name of each line; what hangs below an allowed package is its own business.
    let mut below: Option<usize> = None;
    let mut names = std::collections::BTreeSet::new();
    for line in text.lines() {
        let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap();
        let (depth, name) = (line[..digits].parse::<usize>().unwrap(), line[digits..].split(' ').next().unwrap());
        names.insert(name.to_string());
        if below.is_some_and(|d| depth > d) {
            continue;
        }
        below = None;
        if ours.contains(&name) {
            continue;
        }
        assert!(allowed.contains(&name), "the library depends on {name}:\n{text}");
        below = Some(depth);
    }
    assert!(names.contains("rayon"), "the tree was read: {names:?}");
    assert!(names.len() - ours.len() <= 25, "{} packages: {names:?}", names.len() - ours.len());
}
