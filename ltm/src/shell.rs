//! Quotes commands that the user can copy into a shell.

use std::path::Path;

/// A word for a shell, quoted if necessary.
pub fn word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.into() } else { format!("'{}'", word.replace('\'', r"'\''")) }
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
            ("it's", r"'it'\''s'"),
            ("a=b", "a=b"),
            ("~", "'~'"),
            ("a\nb", "'a\nb'"),
            ("é", "'é'"),
            ("$HOME", "'$HOME'"),
            ("", "''"),
        ];
        for (plain, quoted) in cases {
            assert_eq!(path(plain.as_ref()), quoted);
        }
    }
}
