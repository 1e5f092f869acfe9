//! Runs the examples, and checks what they print.

use std::process::Command;

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("an example");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// The number after the last `word`.
fn last(text: &str, word: &str) -> f64 {
    let (_, after) = text.rsplit_once(word).expect(word);
    after.split_whitespace().next().and_then(|number| number.parse().ok()).expect(word)
}

#[test]
fn the_regression_learns_its_function() {
    let text = run(env!("CARGO_BIN_EXE_regression"), &[]);
    assert!(last(&text, "squared error") < 1e-3, "{text}");
}

#[test]
fn the_gpt_learns_and_writes() {
    // The example's own text, some times over.
    let file = std::env::temp_dir().join(format!("char_gpt_{}.txt", std::process::id()));
    std::fs::write(&file, include_str!("char_gpt.rs").repeat(8)).expect("a file");
    let text = run(env!("CARGO_BIN_EXE_char_gpt"), &[file.to_str().expect("a path"), "4"]);
    std::fs::remove_file(&file).expect("a file");
    let loss = last(&text, "held out:");
    assert!(loss.is_finite() && loss < 4.6, "{text}");
    assert!(text.chars().count() > 350, "{text}");
}
