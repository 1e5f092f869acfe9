//! Writes shards so that a folder is either complete or not there.

use super::checksum::Running;
use super::documents::Position;
use super::encode::Encoded;
use super::manifest::{Part, ShardEntry, Split};
use super::shards::{self, HEADER};
use engine::{Error, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// A folder in the making: a neighbour of its final place with `.partial` behind its name, removed unless committed.
pub struct OutputFolder {
    partial: PathBuf,
    target: PathBuf,
}

impl OutputFolder {
    /// Makes the temporary folder.
    ///
    /// # Errors
    /// If `target` exists and is not an empty folder, or another preparation is or was at work on it.
    pub fn create(target: &Path) -> Result<Self> {
        let Some(name) = target.file_name() else {
            return Err(Error::usage(format!("{} is not a name for a new folder", target.display())));
        };
        match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(Error::usage(format!("{} is not empty: name a new folder", target.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("use", target, &error)),
        }
        let partial = target.with_file_name([name, ".partial".as_ref()].join("".as_ref()));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, &error))?;
        }
        match fs::create_dir(&partial) {
            Ok(()) => Ok(Self { partial, target: target.into() }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Error::new(format!(
                "{} exists: another preparation is running, or one was killed; if none is running, remove it",
                partial.display()
            ))),
            Err(error) => Err(Error::io("create", &partial, &error)),
        }
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.partial
    }

    /// Writes a whole file and waits until it is on the disk.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        File::create(&path)
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .map_err(|error| Error::io("write", &path, &error))
    }

    /// Moves the folder to its place, in one step.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn commit(self) -> Result<()> {
        sync_folder(&self.partial)?;
        fs::rename(&self.partial, &self.target).map_err(|error| Error::io("create", &self.target, &error))?;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))
    }
}

impl Drop for OutputFolder {
    /// Takes away what was not committed. After a commit there is nothing of that name any more.
    fn drop(&mut self) {
        // An error has been reported already, and a folder that stays behind is reported by the next attempt.
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// A rename is on the disk once its folder is. Only Unix lets a folder be opened for that.
fn sync_folder(folder: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| Error::io("write", folder, &error))?;
    }
    Ok(())
}

/// Writes one split's tokens to shards of at most `limit` tokens.
pub struct ShardWriter<'a> {
    folder: &'a Path,
    split: Split,
    limit: u32,
    open: Option<OpenShard>,
    part: Part,
}

struct OpenShard {
    path: PathBuf,
    file: BufWriter<File>,
    tokens: u32,
    checksum: Running,
}

impl<'a> ShardWriter<'a> {
    /// A writer of `train-00000.bin` and so on in `folder`.
    pub fn new(folder: &'a Path, split: Split, limit: u32) -> Self {
        Self { folder, split, limit: limit.max(1), open: None, part: Part::default() }
    }

    /// Appends a document, or a part of one.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn push(&mut self, encoded: Encoded<'_>) -> Result<()> {
        let finished = encoded.position == Position::Last && !encoded.tokens.is_empty();
        self.part.documents += u64::from(finished);
        self.part.bytes += encoded.bytes;
        let mut tokens = encoded.tokens;
        while !tokens.is_empty() {
            let mut shard = match self.open.take() {
                Some(shard) => shard,
                None => OpenShard::create(self.folder.join(self.file_name()))?,
            };
            let (now, later) = tokens.split_at(tokens.len().min((self.limit - shard.tokens) as usize));
            shard.push(now)?;
            tokens = later;
            match shard.tokens == self.limit {
                true => self.close(shard)?,
                false => self.open = Some(shard),
            }
        }
        Ok(())
    }

    /// Closes the last shard.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub fn finish(mut self) -> Result<Part> {
        if let Some(shard) = self.open.take() {
            self.close(shard)?;
        }
        Ok(self.part)
    }

    fn file_name(&self) -> String {
        format!("{}-{:05}.bin", self.split.name(), self.part.shards.len())
    }

    fn close(&mut self, shard: OpenShard) -> Result<()> {
        let file = self.file_name();
        let tokens = u64::from(shard.tokens);
        let checksum = shard.finish()?;
        self.part.tokens += tokens;
        self.part.shards.push(ShardEntry { file, tokens, checksum });
        Ok(())
    }
}

impl OpenShard {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create_new(&path).map_err(|error| Error::io("create", &path, &error))?;
        let mut shard = Self { file: BufWriter::new(file), path, tokens: 0, checksum: Running::default() };
        shard.write(&shards::header(0))?;
        Ok(shard)
    }

    fn push(&mut self, tokens: &[u16]) -> Result<()> {
        self.tokens += tokens.len() as u32;
        let swapped: Vec<u16>;
        let little_endian = if cfg!(target_endian = "little") {
            tokens
        } else {
            swapped = tokens.iter().map(|token| token.to_le()).collect();
            &swapped
        };
        let bytes = bytemuck::cast_slice(little_endian);
        self.checksum.update(bytes);
        self.write(bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::io("write", &self.path, &error))
    }

    /// Puts the number of tokens into the header, waits for the disk, and tells the checksum.
    fn finish(mut self) -> Result<u64> {
        let header: [u8; HEADER] = shards::header(self.tokens);
        self.file
            .flush()
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&header))
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all())
            .map_err(|error| Error::io("write", &self.path, &error))?;
        Ok(self.checksum.finish())
    }
}
