//! Quotes commands that the user can copy into a shell.

use std::path::Path;

/// A word for a shell, quoted if necessary.
pub fn word(word: &str) -> String {
    // Only a NUL cannot be quoted, and no argument has one.
    shlex::try_quote(word).map_or_else(|_| word.into(), Into::into)
}

/// A path for a shell, written so that no command takes it for an option.
pub fn path(path: &Path) -> String {
    let text = path.display();
    word(&if path.as_os_str().as_encoded_bytes().starts_with(b"-") { format!("./{text}") } else { text.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        let cases = [
            ("runs/tiny", "runs/tiny"),
            ("my run", "'my run'"),
            ("-run", "./-run"),
            ("-my run", "'./-my run'"),
            ("it's", "\"it's\""),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ];
        for (plain, quoted) in cases {
            assert_eq!(path(plain.as_ref()), quoted);
        }
    }
}
