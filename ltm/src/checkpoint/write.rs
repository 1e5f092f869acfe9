use super::{Checkpoint, FileEntry, MANIFEST, TEMPORARY, VERSION, at_step, folder_name, folder_of, steps};
use crate::json;
use engine::{Error, Result};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Writes one file's content; called once.
pub type FileWriter<'a> = dyn Fn(&mut dyn Write) -> io::Result<()> + 'a;

/// Writes the checkpoint of `step`, then removes all but this one and those of the older steps `keep`; returns a line for
/// each that could not be removed.
///
/// An existing checkpoint of the same step is replaced. Newer ones are removed: they were damaged, and the run
/// continued from an earlier step. Only one process may write at a time: a process that continues a run holds the lock
/// of its metrics.
///
/// # Errors
/// If the run's folder is missing or the files cannot be written; the error names the file and the reason. Then nothing
/// of the new checkpoint remains, and the older ones are unchanged.
pub fn write(run: &Path, step: u64, files: &[(&str, &FileWriter<'_>)], keep: &[u64]) -> Result<Vec<String>> {
    let folder = folder_of(run);
    // Not the parent folders: a removed run must not reappear half-complete.
    let made = fs::create_dir(&folder).or_else(|e| if e.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(e) });
    made.and_then(|()| sync_folder(run)).map_err(|e| failed("create", &folder, &e))?;
    remove_temporaries(&folder).map_err(|e| failed("clean", &folder, &e))?;

    let temporary = Temporary { path: folder.join(format!("{TEMPORARY}{}", folder_name(step))) };
    fs::create_dir(&temporary.path).map_err(|e| failed("create", &temporary.path, &e))?;
    let target = folder.join(folder_name(step));
    let write = |name: &str, content: &FileWriter<'_>| {
        let path = temporary.path.join(name);
        let (sha256, bytes) = write_hashed(&path, content).map_err(|e| failed("write", &path, &e))?;
        Ok(FileEntry { name: name.into(), bytes, sha256 })
    };
    let files = files.iter().map(|(name, content)| write(name, content)).collect::<Result<Vec<_>>>()?;
    let written = Checkpoint { version: VERSION, step, files, folder: target };
    write(MANIFEST, &|out| out.write_all(json::pretty(&written).as_bytes()))?;
    sync_folder(&temporary.path).map_err(|e| failed("sync", &temporary.path, &e))?;

    // A repeated step writes the same bytes again: keep the old ones instead of risking both.
    if at_step(run, step).as_ref() != Ok(&written) {
        let target = &written.folder;
        discard(target).map_err(|e| failed("replace", target, &e))?;
        fs::rename(&temporary.path, target).map_err(|e| failed("rename to", target, &e))?;
    }
    sync_folder(&folder).map_err(|e| failed("sync", &folder, &e))?;

    let stays = |other: u64| other == step || (other < step && keep.contains(&other));
    let removed = steps(run)?.into_iter().filter(|&other| !stays(other)).map(|other| folder.join(folder_name(other)));
    let kept = |path: PathBuf| Some(format!("cannot remove {}: {}", path.display(), discard(&path).err()?));
    Ok(removed.filter_map(kept).collect())
}

/// Writes a single file so that `path` has either its old content or all of `bytes`, synced. Links are kept; a pipe or
/// terminal is written directly.
///
/// # Errors
/// If it cannot be written; the temporary file beside it is removed then.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
        let written = fs::OpenOptions::new().write(true).open(path).and_then(|mut out| out.write_all(bytes));
        return written.map_err(|e| failed("write", path, &e));
    }
    let target = path.canonicalize().unwrap_or_else(|_| path.into());
    let Some(name) = target.file_name() else {
        return Err(Error::new(format!("{} does not name a file", path.display())));
    };
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let unique = format!("{TEMPORARY}{}-{}", std::process::id(), name.display());
    let temporary = Temporary { path: parent.join(unique) };
    // A killed process with the same id may have left one, e.g. in containers, where the id is always 1.
    remove(&temporary.path)
        .and_then(|()| write_hashed(&temporary.path, &|out| out.write_all(bytes)))
        .and_then(|_| fs::rename(&temporary.path, &target))
        .and_then(|()| sync_folder(parent))
        .map_err(|e| failed("write", path, &e))
}

/// A file or folder that is removed when this goes out of scope, unless it has been renamed.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // If this fails, the next writer tries again; the error that led here is more important.
        let _ = remove(&self.path);
    }
}

/// Hashes everything written to `out`.
struct Hashed<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Creates the file at `path`, fills it by `content`, and waits until it is on disk; returns its SHA-256 and size.
fn write_hashed(path: &Path, content: &FileWriter<'_>) -> io::Result<(String, u64)> {
    let hashed = Hashed { out: File::create_new(path)?, hash: Sha256::new() };
    let mut out = BufWriter::with_capacity(1 << 16, hashed);
    content(&mut out)?;
    let hashed = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    hashed.out.sync_all()?;
    Ok((format!("{:x}", hashed.hash.finalize()), hashed.out.metadata()?.len()))
}

/// Renames a checkpoint to a temporary name and removes it, so that a crash leaves no partial one under its real name.
fn discard(path: &Path) -> io::Result<()> {
    let name = path.file_name().map(|n| n.display().to_string()).unwrap_or_default();
    let doomed = path.with_file_name(format!("{TEMPORARY}removed-{name}"));
    match fs::rename(path, &doomed) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        renamed => renamed.and_then(|()| remove(&doomed)),
    }
}

fn remove_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

/// Waits until the names in a folder are on disk. Only Unix allows this.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> Error {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::new(format!(
            "cannot {action} {}: no space left on the disk; nothing half-written remains, and earlier files are intact",
            path.display()
        )),
        _ => Error::io(action, path, error),
    }
}
