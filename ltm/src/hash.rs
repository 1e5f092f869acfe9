//! SHA-256 in hexadecimal: checkpoints, runs and texts are recognised by it.

use engine::{Error, Result, file};
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::Path;

/// The digest of `bytes`.
pub fn sha256(bytes: impl AsRef<[u8]>) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// The digest of the rest of `input`.
pub fn sha256_of(mut input: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    io::copy(&mut input, &mut hash)?;
    Ok(format!("{:x}", hash.finalize()))
}

/// The digest of the bytes of the file at `path`.
///
/// # Errors
/// As [`file::open`].
pub fn sha256_file(path: &Path) -> Result<String> {
    sha256_of(file::open(path)?).map_err(|error| Error::io("read", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        // The second example of FIPS 180-4.
        let message = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let digest = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
        assert_eq!(sha256(message), digest);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, message).unwrap();
        assert_eq!(sha256_file(&file).unwrap(), digest);
        assert!(sha256_file(folder.path()).unwrap_err().to_string().contains("is a folder, not a file"));
    }
}
