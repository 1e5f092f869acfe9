use std::fmt;

/// The result of everything that can fail because of a file, a configuration, a device or a shape.
pub type Result<T> = std::result::Result<T, Error>;

/// Whose mistake it is; decides the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// A flag, key or combination of settings that cannot be; exit code 2.
    Usage,
    /// Data, files, devices or numbers that went wrong; exit code 1.
    Failure,
    /// More than this device can hold or has kernels for, while another may; exit code 1.
    Device,
}

/// One clear line: what was wrong, where, and what would be right.
///
/// ```
/// use engine::{Error, ErrorKind};
///
/// let error = Error::usage("bias is f32[3], must be f32[4]").at("layers.2");
/// assert_eq!(error.to_string(), "layers.2: bias is f32[3], must be f32[4]");
/// assert_eq!(error.kind(), ErrorKind::Usage);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// Something in the world (a file, a device, a number) is not as it must be.
    pub fn new(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failure, message: message.into() }
    }

    /// The caller asked for something that cannot be.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Usage, message: message.into() }
    }

    /// The device cannot hold what was asked of it, or has no kernels for it.
    pub fn device(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Device, message: message.into() }
    }

    /// An operating system error on `path`, e.g. `cannot read x.bin: permission denied`.
    pub fn io(action: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(format!("cannot {action} {}: {error}", path.display()))
    }

    /// Puts the place in front: `at("layer 3")` turns `bad gain` into `layer 3: bad gain`.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Whose mistake it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// A number of bytes as messages have it, e.g. `1.50 GiB`.
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
        let text = |n: usize| bytes_text(n);
        assert_eq!([text(0), text(1023), text(1536)], ["0 bytes", "1023 bytes", "1.50 KiB"]);
        assert_eq!([text(5 << 20), text(3 << 29)], ["5.00 MiB", "1.50 GiB"]);
    }
}
