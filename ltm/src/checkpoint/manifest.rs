use crate::hash::{hex, sha256_reader};
use crate::json::{self, Value};
use engine::{Error, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The file that is written last and vouches for the others.
pub(super) const MANIFEST: &str = "manifest.json";

/// Version of the manifest's layout.
const VERSION: u64 = 1;

/// Longest manifest read, in bytes.
const MAX_MANIFEST: u64 = 1 << 20;

/// A file of a checkpoint, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Its name within the checkpoint's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 digest in hexadecimal.
    pub sha256: String,
}

/// A checkpoint whose files have been found to be what its manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The slow step after which it was taken.
    pub step: u64,
    /// Its folder.
    pub folder: PathBuf,
    /// Its files, in the order written, without the manifest.
    pub files: Vec<FileEntry>,
}

impl Checkpoint {
    /// The path of one of its files.
    ///
    /// # Errors
    /// If it has no such file.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        if self.files.iter().any(|file| file.name == name) {
            return Ok(self.folder.join(name));
        }
        Err(Error::new(format!("{}: the checkpoint has no file {name:?}", self.folder.display())))
    }

    /// Reads the manifest in `folder` and every file that it names.
    pub(super) fn verify(folder: &Path, step: u64) -> Result<Self> {
        let mut text = Vec::new();
        let manifest = open(folder, MANIFEST)?;
        manifest.take(MAX_MANIFEST + 1).read_to_end(&mut text).map_err(|e| cannot_read(MANIFEST, &e))?;
        if text.len() as u64 > MAX_MANIFEST {
            return Err(Error::new(format!("{MANIFEST} is longer than {MAX_MANIFEST} bytes")));
        }
        let checkpoint = Self::from_manifest(&text, folder, step).map_err(|e| e.at(MANIFEST))?;
        checkpoint.files.iter().try_for_each(|file| verify_file(folder, file))?;
        Ok(checkpoint)
    }

    /// What a manifest says; the files are not looked at.
    pub(super) fn from_manifest(text: &[u8], folder: &Path, step: u64) -> Result<Self> {
        let manifest = json::parse(text)?;
        let checkpoint = Self { step, folder: folder.to_owned(), files: read_manifest(&manifest, step)? };
        if checkpoint.manifest() != manifest {
            return Err(Error::new("it holds more than version, step and files, or in another order"));
        }
        Ok(checkpoint)
    }

    pub(super) fn manifest(&self) -> Value {
        let files = self.files.iter().map(|file| {
            Value::object([
                ("name", file.name.as_str().into()),
                ("bytes", file.bytes.into()),
                ("sha256", file.sha256.as_str().into()),
            ])
        });
        let files = Value::Array(files.collect());
        Value::object([("version", VERSION.into()), ("step", self.step.into()), ("files", files)])
    }
}

/// A name that stays within its folder, is not hidden, and is not the manifest's.
pub(super) fn check_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) || name == MANIFEST {
            return Err(Error::new(format!("{name:?} cannot name a file of a checkpoint")));
        }
        if !seen.insert(name) {
            return Err(Error::new(format!("two files are named {name:?}")));
        }
    }
    Ok(())
}

fn read_manifest(manifest: &Value, step: u64) -> Result<Vec<FileEntry>> {
    let version = manifest.read("version", Value::as_u64)?;
    if version != VERSION {
        return Err(Error::new(format!("version {version}, this program reads version {VERSION}")));
    }
    let found = manifest.read("step", Value::as_u64)?;
    if found != step {
        return Err(Error::new(format!("it is of step {found}, its folder of step {step}")));
    }
    let entry = |file: &Value| {
        Ok(FileEntry {
            name: file.read("name", Value::as_str)?.into(),
            bytes: file.read("bytes", Value::as_u64)?,
            sha256: file.read("sha256", Value::as_str)?.into(),
        })
    };
    let files = manifest.read("files", |files| files.as_array()?.iter().map(entry).collect::<Result<Vec<_>>>())?;
    check_names(files.iter().map(|file| file.name.as_str()))?;
    Ok(files)
}

fn verify_file(folder: &Path, expected: &FileEntry) -> Result<()> {
    let name = &expected.name;
    let file = open(folder, name)?;
    let size = file.metadata().map_err(|e| cannot_read(name, &e))?.len();
    if size != expected.bytes {
        return Err(Error::new(format!("{name} has {size} bytes, its manifest says {}", expected.bytes)));
    }
    let (digest, _) = sha256_reader(file).map_err(|e| cannot_read(name, &e))?;
    if hex(&digest) != expected.sha256 {
        return Err(Error::new(format!("{name} is not what was written: its SHA-256 differs from the manifest's")));
    }
    Ok(())
}

fn open(folder: &Path, name: &str) -> Result<File> {
    File::open(folder.join(name)).map_err(|e| cannot_read(name, &e))
}

fn cannot_read(name: &str, error: &std::io::Error) -> Error {
    Error::new(format!("cannot read {name}: {error}"))
}
