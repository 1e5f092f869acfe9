/// The candidate that takes the fewest edits from `word`.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> &'a str {
    let word = &word.to_lowercase();
    candidates.into_iter().min_by_key(|candidate| edit_distance(candidate, word)).unwrap_or_default()
}

/// The keys that `word` may mean: keys that begin with it, else keys with this name in another section, else keys with
/// the fewest edits, unless these change half of the word. A word without a dot is a name or a whole key.
pub fn near_keys(word: &str, keys: &[&'static str]) -> Vec<&'static str> {
    let word = &*word.to_lowercase();
    let name = |key: &'static str| key.split_once('.').map_or(key, |(_, name)| name);
    let forms = |key| if word.contains('.') { [key, key] } else { [key, name(key)] };
    let edits = |key| forms(key).map(|form| edit_distance(form, word)).into_iter().min();
    let fewest = keys.iter().map(|key| edits(key)).min().flatten().filter(|edits| 2 * edits < word.chars().count());
    let chosen = |fits: &dyn Fn(&'static str) -> bool| keys.iter().copied().filter(|key| fits(key)).collect::<Vec<_>>();
    let same = chosen(&|key| word.rsplit('.').next() == Some(name(key)));
    let longer = chosen(&|key| word.len() > 1 && forms(key).iter().any(|form| form.starts_with(word)));
    let ways = [longer, same, chosen(&|key| fewest.is_some() && edits(key) == fewest)];
    ways.into_iter().find(|keys| !keys.is_empty()).unwrap_or_default()
}

/// Insertions, deletions and substitutions between two words (Levenshtein), by rows of the usual table.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=a.chars().count()).collect();
    for (j, y) in b.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = j + 1;
        for (i, x) in a.chars().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[i + 1];
            row[i + 1] = substitute.min(row[i] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}
