//! What lies in a folder of shards, and for what.

use super::manifest::{Manifest, ShardEntry, Split};
use engine::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The manifest's entry for a file.
pub(super) fn listed<'m>(manifest: &'m Manifest, file: &Path) -> Option<&'m ShardEntry> {
    let name = file.file_name()?.to_str()?;
    manifest.train.shards.iter().chain(&manifest.validation.shards).find(|entry| entry.file == name)
}

/// What a shard is for by its name, `*.bin`: those with the word val, valid, validation or test in it (`val.bin`,
/// `fineweb_val_000000.bin`) are for validation, all others for learning.
pub fn named_split(path: &Path) -> Option<Split> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let held_out = |word: &str| ["val", "valid", "validation", "test"].contains(&word);
    let its = if name.split(|c: char| !c.is_alphanumeric()).any(held_out) { Split::Validation } else { Split::Train };
    path.extension().is_some_and(|extension| extension == "bin").then_some(its)
}

/// The shards of a folder without manifest, by their names.
pub(super) fn foreign_shards(folder: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let fail = |error: &std::io::Error| Error::io("read", folder, error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| fail(&error))? {
        let path = entry.map_err(|error| fail(&error))?.path();
        if named_split(&path) == Some(split) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The splits that `path` has. A single file counts as training data.
///
/// # Errors
/// A path that cannot be read.
pub fn splits(path: &Path) -> Result<Vec<Split>> {
    if !fs::metadata(path).map_err(|error| Error::io("read", path, &error))?.is_dir() {
        return Ok(vec![Split::Train]);
    }
    let manifest = Manifest::read(path)?;
    let mut found = Vec::new();
    for split in [Split::Train, Split::Validation] {
        let any = match &manifest {
            Some(manifest) => !manifest.part(split).shards.is_empty(),
            None => !foreign_shards(path, split)?.is_empty(),
        };
        found.extend(any.then_some(split));
    }
    Ok(found)
}

/// The tokenizer that prepared data names, for those who have not chosen one; `None` for text and for others' shards.
///
/// # Errors
/// A manifest that cannot be read.
pub fn tokenizer_of(path: &Path) -> Result<Option<String>> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let manifest = Manifest::read(folder)?;
    Ok(manifest.filter(|manifest| path.is_dir() || listed(manifest, path).is_some()).map(|manifest| manifest.tokenizer))
}
