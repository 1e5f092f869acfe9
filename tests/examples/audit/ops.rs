//! Every op and update: what its documentation says it computes.

use crate::root;
use crate::sources::{files, short};
use std::fs;

/// What the sources say about an op.
struct Described {
    /// Its name in plans and tables.
    name: String,
    file: String,
    is_update: bool,
    /// The items of its documentation, `Formula`, `VJP`, `Source` and `Check`.
    items: Vec<(String, String)>,
}

impl Described {
    fn item(&self, name: &str) -> Option<&str> {
        self.items.iter().find(|(n, _)| n == name).map(|(_, text)| text.as_str())
    }
}

pub fn section() -> String {
    let mut all: Vec<Described> = files(&root().join("kernels/src"), &["rs"])
        .iter()
        .flat_map(|path| described(&fs::read_to_string(path).expect("a source"), &short(path)))
        .collect();
    all.sort_by(|a, b| (a.is_update, &a.name).cmp(&(b.is_update, &b.name)));
    let mut text = "## Ops\n\nFormula, VJP (vector-Jacobian product) and source are the op's documentation. Gradients are checked against central \
         differences; where that is not possible, the op's documentation says what is done instead.\n"
        .to_string();
    for op in all.iter().filter(|op| !op.is_update) {
        text.push_str(&head(op, &["Formula", "VJP", "Source"]));
        if let Some(check) = op.item("Check") {
            text.push_str(&format!("- Check: {check}\n"));
        }
    }
    text.push_str("\n## Updates in place\n\nWhat changes weights, posteriors and rings between ops.\n");
    for op in all.iter().filter(|op| op.is_update) {
        text.push_str(&head(op, &["Formula", "Source"]));
    }
    text
}

fn head(op: &Described, items: &[&str]) -> String {
    let mut text = format!("\n### {}\n\n`{}`\n\n", op.name, op.file);
    for item in items {
        let said = op.item(item).unwrap_or_else(|| panic!("{}: its documentation has no item {item}", op.name));
        text.push_str(&format!("- {item}: {said}\n").replace(": \n", ":\n"));
    }
    text
}

/// What a file says about the ops that it implements.
fn described(source: &str, file: &str) -> Vec<Described> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let (of, is_update) = match (line.strip_prefix("impl Op for "), line.strip_prefix("impl Update for ")) {
            (Some(of), _) => (of, false),
            (_, Some(of)) => (of, true),
            _ => continue,
        };
        let of = of.trim_end_matches(" {");
        // The first text of an implementation is the name.
        let quoted = lines[at..].iter().find_map(|line| line.rsplit('"').nth(1));
        let name = quoted.unwrap_or_else(|| panic!("{file}: {of} has no name")).to_string();
        let begins = |line: &&str| {
            let rest = line.strip_prefix("pub struct ").and_then(|line| line.strip_prefix(of));
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        let mut declared = lines.iter().position(begins).unwrap_or_else(|| panic!("{file}: no struct {of}"));
        while declared > 0 && lines[declared - 1].starts_with('#') {
            declared -= 1;
        }
        let docs = lines[..declared].iter().rposition(|line| !line.starts_with("///")).map_or(0, |i| i + 1);
        found.push(Described { name, file: file.into(), is_update, items: items(&lines[docs..declared]) });
    }
    found
}

/// The list items `- Name: text` of a documentation, each on one line. A `text` block, which an item may call `above`, is the
/// end of that item.
fn items(docs: &[&str]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let (mut block, mut is_block, mut is_item) = (String::new(), false, false);
    for line in docs.iter().map(|line| line.trim_start_matches('/')) {
        if line.trim_start().starts_with("```") {
            is_block = !is_block;
            continue;
        }
        if is_block {
            block.push_str(&format!("\n     {line}"));
            continue;
        }
        let item = line.strip_prefix(" - ").and_then(|text| text.split_once(": "));
        match (item, line.strip_prefix("   ")) {
            (Some((name, text)), _) => found.push((name.into(), text.into())),
            (None, Some(more)) if is_item => {
                let (_, text) = found.last_mut().expect("an item");
                text.push(' ');
                text.push_str(more);
            }
            _ => {}
        }
        is_item = item.is_some() || is_item && line.starts_with("   ");
    }
    for (_, text) in found.iter_mut().filter(|(_, text)| text.ends_with("above")) {
        assert!(!block.is_empty(), "{text}: there is no block");
        let words = text.trim_end_matches("above").trim_end_matches(" and ").trim_end_matches(',').to_string();
        let words = if words.is_empty() { words } else { words + ", and" };
        *text = format!("{words}\n{block}\n");
    }
    found
}
