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

/// The digest of the bytes of `files`, one after the other.
///
/// # Errors
/// As [`file::open`].
pub fn sha256_files(files: &[impl AsRef<Path>]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files.iter().map(AsRef::as_ref) {
        io::copy(&mut file::open(path)?, &mut hash).map_err(|error| Error::io("read", path, &error))?;
    }
    Ok(format!("{:x}", hash.finalize()))
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
        let parts = [("front", &message[..20]), ("back", &message[20..])];
        let files = parts.map(|(name, _)| folder.path().join(name));
        files.iter().zip(parts).for_each(|(file, (_, part))| std::fs::write(file, part).unwrap());
        assert_eq!(sha256_files(&files).unwrap(), digest);
        assert!(sha256_files(&[folder.path()]).unwrap_err().to_string().contains("is a folder, not a file"));
    }
}
