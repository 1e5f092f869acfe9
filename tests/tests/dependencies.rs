//! The library part depends on half, rayon, bytemuck, memmap2, cudarc, and what they bring; on nothing else.

use std::process::Command;

#[test]
fn the_library_depends_on_little() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal,build", "--target", "all", "--prefix", "depth", "-p", "ltm"])
        .arg("--no-default-features")
        .current_dir(root)
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let text = String::from_utf8(tree.stdout).unwrap();
    let ours = ["ltm", "engine", "kernels", "autograd"];
    let allowed = ["half", "rayon", "bytemuck", "memmap2", "cudarc"];
    // Depth and name of each line; what hangs below an allowed package is its own business.
    let mut below: Option<usize> = None;
    let mut packages = std::collections::BTreeSet::new();
    for line in text.lines() {
        let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap();
        let (depth, mut words) = (line[..digits].parse::<usize>().unwrap(), line[digits..].split(' '));
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        packages.insert((name.to_string(), version.to_string()));
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
    let others: Vec<_> = packages.iter().filter(|(name, _)| !ours.contains(&&name[..])).collect();
    assert!(others.iter().any(|(name, _)| name == "rayon"), "the tree was read: {others:?}");
    assert!(others.len() <= 25, "{} packages: {others:?}", others.len());
}
