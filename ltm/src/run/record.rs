//! What it takes to repeat a run: `sessions.jsonl`, a line for each time that it was begun or gone on with.

use super::Material;
use crate::config::Config;
use crate::data::folder::named_split;
use crate::data::{self, Split};
use crate::hash;
use crate::json::{self, Value};
use engine::{Device, Error, Result, probe, simd};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of a file that are hashed between two looks at how far that is.
const STRETCH: u64 = 1 << 24;

const FILE: &str = "sessions.jsonl";

/// The beginning of a run, or one of its continuations.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Steps that were done already.
    pub after: u64,
    /// The program, see [`program`].
    pub program: Value,
    /// Where it ran, see [`machine`].
    pub machine: Value,
    /// What it learnt from.
    pub data: Data,
    /// Every setting, as it was then.
    pub config: Config,
}

/// The data of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// As in [`Material::fingerprint`](super::Material::fingerprint): tokens and splits.
    pub fingerprint: String,
    /// The files; none if the run learns from the embedded corpus, which is a part of the program.
    pub files: Vec<DataFile>,
}

/// A file that a run learns from, or is validated with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Where it was.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 digest in hexadecimal.
    pub sha256: String,
    /// Whether the run learns from it, in whole or in part; else all of it is held out.
    pub learnt: bool,
}

impl Data {
    /// The data of a run that trains on `material`.
    pub fn of(material: &Material) -> Self {
        let file = |file: &data::DataFile, learnt| {
            let data::DataFile { path, bytes, sha256 } = file.clone();
            DataFile { path, bytes, sha256, learnt }
        };
        let training = |file: &&data::DataFile| material.training_files.iter().all(|known| known.path != file.path);
        let validation = material.validation_files.iter().filter(training).map(|f| file(f, false));
        let files = material.training_files.iter().map(|f| file(f, true)).chain(validation).collect();
        Self { fingerprint: material.fingerprint.clone(), files }
    }

    /// Whether these are the same data, wherever they lie.
    pub fn is(&self, other: &Self) -> bool {
        let content = |data: &Self| data.files.iter().map(|f| (f.bytes, f.sha256.clone())).collect::<Vec<_>>();
        self.fingerprint == other.fingerprint && content(self) == content(other)
    }

    /// The data of every record in a run's folder; `None` if it has no records.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(super) fn recorded(run: &Path) -> Result<Option<Vec<Self>>> {
        let of = |value: &Value| value.read("data", Self::from_json).ok();
        Ok(lines(run)?.map(|lines| lines.iter().filter_map(of).collect()))
    }

    fn to_json(&self) -> Value {
        let file = |f: &DataFile| {
            Value::object([
                ("path", f.path.to_string_lossy().as_ref().into()),
                ("bytes", f.bytes.into()),
                ("sha256", f.sha256.as_str().into()),
                ("learnt", f.learnt.into()),
            ])
        };
        let files = self.files.iter().map(file).collect();
        Value::object([("fingerprint", self.fingerprint.as_str().into()), ("files", Value::Array(files))])
    }

    fn from_json(value: &Value) -> Result<Self> {
        let text = |value: &Value, key: &str| value.read(key, Value::as_str).map(str::to_string);
        let file = |f: &Value| {
            let path = PathBuf::from(text(f, "path")?);
            Ok(DataFile {
                bytes: f.read("bytes", Value::as_u64)?,
                sha256: text(f, "sha256")?,
                // Records once did not say so: shards that are held out are called it.
                learnt: match f.get("learnt") {
                    Some(learnt) => learnt.as_bool()?,
                    None => named_split(&path) != Some(Split::Validation),
                },
                path,
            })
        };
        let files = value.read("files", |files| files.as_array()?.iter().map(file).collect())?;
        Ok(Self { fingerprint: text(value, "fingerprint")?, files })
    }
}

/// The records of a run's folder, but for a line that a kill cut in two: whoever goes on with the run writes it again. `None` if
/// there is no such file.
fn lines(run: &Path) -> Result<Option<Vec<Value>>> {
    let path = run.join(FILE);
    match fs::read(&path) {
        Ok(text) => Ok(Some(text.split(|&byte| byte == b'\n').filter_map(|line| json::parse(line).ok()).collect())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &path, &error)),
    }
}

/// A file's SHA-256 in hexadecimal, and its size.
pub(super) fn digest(path: &Path) -> Result<(String, u64)> {
    let read = File::open(path).and_then(hash::sha256_reader).map_err(|e| Error::io("read", path, &e));
    read.map(|(digest, bytes)| (hash::hex(&digest), bytes))
}

/// The digest of the bytes of `files`, one behind the other, in hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_files(files: &[impl AsRef<Path>]) -> Result<String> {
    sha256_files_watched(files, |_| Ok(()))
}

/// The same for files that may be large: calls `progress` with the bytes read so far, whose error ends it.
///
/// # Errors
/// A file that cannot be read, and those of `progress`.
pub fn sha256_files_watched(files: &[impl AsRef<Path>], mut progress: impl FnMut(u64) -> Result<()>) -> Result<String> {
    let (mut hash, mut done) = (hash::Sha256::new(), 0);
    for path in files.iter().map(AsRef::as_ref) {
        let cannot = |error| Error::io("read", path, &error);
        // On some systems a folder opens and then does not read.
        if path.is_dir() {
            return Err(Error::new(format!("{} is a folder: name the files in it", path.display())));
        }
        // A pipe or a device may never end, and cannot be read a second time.
        if path.exists() && !path.is_file() {
            return Err(Error::new(format!("{} is no regular file: copy what it holds into one", path.display())));
        }
        let mut file = File::open(path).map_err(cannot)?;
        loop {
            let n = std::io::copy(&mut (&mut file).take(STRETCH), &mut hash).map_err(cannot)?;
            if n == 0 {
                break;
            }
            done += n;
            progress(done)?;
        }
    }
    Ok(hash::hex(&hash.finish()))
}

impl Record {
    /// What is known about this program, machine and device.
    pub fn new(after: u64, config: &Config, data: Data, device: &Device) -> Self {
        Self { after, program: program(), machine: machine(device), data, config: config.clone() }
    }

    /// Appends a line to the file in a run's folder and waits until it is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, run: &Path) -> Result<()> {
        let line = Value::object([
            ("after", self.after.into()),
            ("program", self.program.clone()),
            ("machine", self.machine.clone()),
            ("data", self.data.to_json()),
            ("config", json::from_serde(&self.config)?),
        ]);
        let path = run.join(FILE);
        let file = OpenOptions::new().append(true).create(true).open(&path);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data()))
            .map_err(|e| Error::io("write", &path, &e))
    }

    /// All that a run's folder has, in the order written. A line that a kill cut in two is left out.
    ///
    /// # Errors
    /// If there is no such file, or it cannot be read.
    pub fn all(run: &Path) -> Result<Vec<Self>> {
        let lines = lines(run)?.ok_or_else(|| {
            Error::new(format!(
                "{} has no {FILE}: it was begun by a program that did not record what it takes to repeat a run",
                run.display()
            ))
        })?;
        Ok(lines.iter().filter_map(|value| Self::from_json(value).ok()).collect())
    }

    fn from_json(value: &Value) -> Result<Self> {
        Ok(Self {
            after: value.read("after", Value::as_u64)?,
            program: value.field("program")?.clone(),
            machine: value.field("machine")?.clone(),
            data: value.read("data", Data::from_json)?,
            config: value.read("config", json::to_serde::<Config>)?.resolved()?,
        })
    }

    /// What of program and machine is not as in `other`, and can have a say in the bits: one line each.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let parts = [
            ("source", &self.program, &other.program, "sources"),
            ("compiler", &self.program, &other.program, "compiler"),
            ("target", &self.program, &other.program, "target"),
            ("compiler's flags", &self.program, &other.program, "flags"),
            ("device", &self.machine, &other.machine, "device"),
        ];
        let said = |value: &Value, key: &str| value.get(key).map_or_else(String::new, ToString::to_string);
        let differ = |(what, ours, theirs, key): (&str, &Value, &Value, &str)| {
            let (ours, theirs) = (said(ours, key), said(theirs, key));
            (ours != theirs).then(|| format!("another {what}: {theirs} then, {ours} now"))
        };
        parts.into_iter().filter_map(differ).collect()
    }
}

/// SHA-256 of all sources of the library and the program, with the lock file.
pub const SOURCES: &str = env!("LTM_BUILD_SOURCES");

/// What this program was made of: version; [`SOURCES`]; the commit that was checked out when they were last compiled, or
/// nothing; the compiler, its target, profile and flags.
pub fn program() -> Value {
    Value::object(
        [
            ("version", env!("CARGO_PKG_VERSION")),
            ("sources", SOURCES),
            ("commit", env!("LTM_BUILD_COMMIT")),
            ("compiler", env!("LTM_BUILD_COMPILER")),
            ("target", env!("LTM_BUILD_TARGET")),
            ("profile", env!("LTM_BUILD_PROFILE")),
            ("flags", env!("LTM_BUILD_FLAGS")),
        ]
        .map(|(key, value)| (key, value.into())),
    )
}

/// Where this program runs: processor, its instruction sets that the program knows and the one in use, threads, and device.
pub fn machine(device: &Device) -> Value {
    let levels: Vec<String> = simd::supported().iter().map(ToString::to_string).collect();
    let device = match device {
        Device::Cpu => "CPU".to_string(),
        Device::Cuda(gpu) => gpu.name().to_string(),
    };
    Value::object([
        ("processor", probe::processor_name().into()),
        ("features", levels.into()),
        ("feature_used", simd::level().to_string().into()),
        ("threads", rayon::current_num_threads().into()),
        ("device", device.into()),
    ])
}
