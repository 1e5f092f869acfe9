//! Lists every op and update with the formula from its documentation.

use crate::sources::files;
use kernels::registry::ROOMS;
use lab::verify::SIZES;
use std::collections::{BTreeMap, BTreeSet};

pub fn section() -> String {
    let mut ops = BTreeMap::new();
    let mut updates = BTreeMap::new();
    for (file, source) in files("kernels/src") {
        let lines: Vec<&str> = source.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let (of, all, must) = if let Some(of) = line.strip_prefix("impl Op for ") {
                (of, &mut ops, &["Formula", "VJP", "Source"][..])
            } else if let Some(of) = line.strip_prefix("impl Update for ") {
                (of, &mut updates, &["Formula", "Source"][..])
            } else {
                continue;
            };
            let of = of.trim_end_matches(" {");
            let items = items(documentation(&lines, of).unwrap_or_else(|| panic!("{file}: no struct or enum {of}")));
            let mut text = format!("`{file}`\n\n");
            for item in must {
                let said = items.get(*item).unwrap_or_else(|| panic!("{file}: the documentation of {of} lacks {item}"));
                text.push_str(&format!("- {item}: {said}\n").replace(": \n", ":\n"));
            }
            items.get("Check").into_iter().for_each(|said| text.push_str(&format!("- Check: {said}\n")));
            // The first texts of an implementation are its names. If a table has them, they are those of the folder's cases.
            let texts = lines[at..].iter().map(|line| line.rsplit('"').nth(1));
            let names: Vec<&str> = if texts.clone().take(6).all(|text| text.is_none()) {
                cases().filter(|(room, _)| file.contains(&format!("/{room}/"))).map(|(_, name)| name).collect()
            } else {
                texts.skip_while(Option::is_none).map_while(|name| name).collect()
            };
            all.insert(names.join(", "), text);
        }
    }
    for (_, name) in cases() {
        let found = ops.keys().any(|names: &String| names.split(", ").any(|known| known == name));
        assert!(found, "{name} is not found in kernels/src");
    }
    let list = |all: BTreeMap<String, String>| -> String {
        all.into_iter().map(|(name, text)| format!("\n### {name}\n\n{text}")).collect()
    };
    format!(
        "## Ops\n\nFormula, VJP (vector-Jacobian product) and source come from the op's documentation. Tests check gradients against \
         central differences; if that is not possible, the documentation names another check.\n{}\n\
         ## In-place updates\n\nThese change weights, posteriors and rings in place.\n{}",
        list(ops),
        list(updates)
    )
}

/// The folder and name of every op that has cases, each once.
fn cases() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut known = BTreeSet::new();
    let all = ROOMS.iter().flat_map(|room| (room.cases)(&SIZES[0]).into_iter().map(|case| (room.name, case.op.name())));
    all.filter(move |case| known.insert(*case))
}

/// The lines of documentation above a struct or enum, without their slashes.
fn documentation<'a>(lines: &[&'a str], of: &str) -> Option<impl Iterator<Item = &'a str>> {
    let declares = |line: &&str| {
        let kinds = ["pub struct ", "pub enum "];
        let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind)?.strip_prefix(of));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let above = &lines[..lines.iter().position(declares)?];
    let begin = above.iter().rposition(|line| !line.starts_with("///") && !line.starts_with('#')).map_or(0, |i| i + 1);
    Some(above[begin..].iter().filter(|line| line.starts_with("///")).map(|line| line.trim_start_matches('/')))
}

/// The list items `- Name: text` of a documentation, each on one line. If an item says `above`, it ends with the `text`
/// block.
fn items<'a>(docs: impl Iterator<Item = &'a str>) -> BTreeMap<String, String> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let (mut block, mut is_block, mut item) = (String::new(), false, String::new());
    for line in docs {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
        } else if is_block {
            block.push_str(&format!("\n     {line}"));
        } else if let Some((name, text)) = line.strip_prefix(" - ").and_then(|text| text.split_once(": ")) {
            item = name.into();
            found.insert(item.clone(), text.into());
        } else if let (Some(more), Some(text)) = (line.strip_prefix("   "), found.get_mut(&item)) {
            text.push_str(&format!(" {more}"));
        } else {
            item.clear();
        }
    }
    for text in found.values_mut() {
        if let Some(words) = text.strip_suffix("above") {
            assert!(!block.is_empty(), "{text}: there is no block");
            let words = words.trim_end_matches(" and ").trim_end_matches(',');
            *text = format!("{words}{}\n{block}\n", if words.is_empty() { "" } else { ", and" });
        }
    }
    found
}
