/// The candidate that takes the fewest edits from `word`. A word without a dot is also compared with the part of a
/// candidate after its dot, so that `stps` finds `fast.steps`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> &'a str {
    // Longer words are no misspelt keys.
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    let score = |candidate: &str| {
        let whole = edit_distance(&word, candidate);
        match candidate.split_once('.') {
            Some((_, last)) if !word.contains(&'.') => whole.min(edit_distance(&word, last)),
            _ => whole,
        }
    };
    candidates.into_iter().min_by_key(|candidate| score(candidate)).unwrap_or_default()
}

/// Insertions, deletions and substitutions between two words (Levenshtein), by rows of the usual table.
fn edit_distance(a: &[char], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (j, y) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = j + 1;
        for (i, &x) in a.iter().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[i + 1];
            row[i + 1] = substitute.min(row[i] + 1).min(diagonal + 1);
        }
    }
    row[a.len()]
}
