//! A folder that is either complete or not there.

use engine::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
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
