use std::fmt;

/// The result of an operation that can fail because of a file, a configuration, a device or a shape.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of error it is. It determines a program's exit code and advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The caller asked for something impossible, such as an unknown setting.
    Usage,
    /// A file, a number or a device is wrong.
    Failure,
    /// This device cannot be used, lacks the memory, or has no kernels for the task. Another device may work.
    Device,
    /// The file of compiled kernels does not fit this program or this GPU. A new file may work.
    Kernels,
}

/// An error in one line: what is wrong, where, and what would be right.
///
/// ```
/// use engine::{Error, ErrorKind};
///
/// let error = Error::usage("bias is f32[3], must be f32[4]").at("layers.2");
/// assert_eq!(error.to_string(), "layers.2: bias is f32[3], must be f32[4]");
/// assert_eq!(error.kind, ErrorKind::Usage);
/// // `main` prints it in this form if it returns it.
/// assert_eq!(format!("{error:?}"), error.to_string());
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    /// What kind of error it is.
    pub kind: ErrorKind,
    message: String,
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// An error of kind [`ErrorKind::Failure`].
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failure, message: message.into() }
    }

    /// An error of kind [`ErrorKind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Usage, message: message.into() }
    }

    /// An error of kind [`ErrorKind::Device`].
    pub fn device(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Device, message: message.into() }
    }

    /// An error of kind [`ErrorKind::Kernels`].
    pub(crate) fn kernels(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Kernels, message: message.into() }
    }

    /// An error of the operating system on `path`, e.g. `cannot read x.bin: permission denied`.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {action} {}: {error}", path.display()))
    }

    /// Prepends the place: `at("layer 3")` turns `bad gain` into `layer 3: bad gain`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Appends a hint: `hint("set it to 1")` turns `bad gain` into `bad gain; set it to 1`.
    #[must_use]
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A number of bytes for messages, e.g. `1.50 GiB`.
pub fn bytes_text(bytes: usize) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|&(shift, _)| bytes >> shift > 0) {
        Some((shift, unit)) => format!("{:.2} {unit}", bytes as f64 / (1u64 << shift) as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_words() {
        let sizes = [0, 1023, 1536, 5 << 20, 3 << 29].map(bytes_text);
        assert_eq!(sizes, ["0 bytes", "1023 bytes", "1.50 KiB", "5.00 MiB", "1.50 GiB"]);
    }
}
