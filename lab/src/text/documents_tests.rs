use super::*;
use crate::text::tokenizer;
use ltm::config::{Choice, Tokenizer as Name};
use ltm::data::Bytes as ByTokens;

fn pieces(text: impl Read + Send + 'static, format: &Format, tokenizer: &dyn Tokenizer) -> Vec<Piece> {
    Pieces::of_reader("input", Box::new(text), format, tokenizer).map(Result::unwrap).collect()
}

/// Documents with the pieces put together, and where each begins.
fn documents(text: &'static str, split: TextSplit) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = Vec::new();
    let mut inside = false;
    for piece in pieces(text.as_bytes(), &Format::Text(split), &ByTokens) {
        let At::Byte(byte) = piece.place.at else { panic!("text has byte offsets") };
        let part = String::from_utf8(piece.bytes).unwrap();
        match inside {
            true => all.last_mut().unwrap().0.push_str(&part),
            false => all.push((part, byte)),
        }
        assert_eq!(piece.document + 1, all.len() as u64);
        inside = piece.position == Position::Inside;
    }
    assert!(!inside, "the last piece ends its document");
    all
}

#[test]
fn text_is_split_as_asked() {
    let text = "\n\na b\r\nc\n \t\n\n\nd\n";
    let own = |list: &[(&str, u64)]| -> Vec<_> { list.iter().map(|&(s, at)| (s.to_string(), at)).collect() };
    assert_eq!(documents(text, TextSplit::File), own(&[(text, 0)]));
    assert_eq!(documents(text, TextSplit::Lines), own(&[("a b", 2), ("c", 7), (" \t", 9), ("d", 14)]));
    assert_eq!(documents(text, TextSplit::BlankLines), own(&[("a b\r\nc", 2), ("d", 14)]));
    for split in [TextSplit::File, TextSplit::Lines, TextSplit::BlankLines] {
        assert_eq!(documents("", split), []);
        assert_eq!(documents("no newline", split), own(&[("no newline", 0)]));
    }
    assert_eq!(documents("\n \n\n ", TextSplit::BlankLines), []);
}

/// `n` bytes of `pattern`, again and again; nothing of it is ever in memory at once.
struct Repeat {
    pattern: &'static [u8],
    at: usize,
    left: usize,
}

impl Read for Repeat {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = out.len().min(self.left);
        for byte in &mut out[..n] {
            *byte = self.pattern[self.at % self.pattern.len()];
            self.at += 1;
        }
        self.left -= n;
        Ok(n)
    }
}

/// What is read but not handed out stays below a constant, whatever the text looks like.
#[test]
fn memory_does_not_depend_on_the_size_of_a_document() {
    const TOTAL: usize = 6 << 20;
    for tokenizer in [Name::Bytes, Name::Gpt2].map(tokenizer) {
        for pattern in [&b"x"[..], b"some words ", b"\xe4\xb8\xad", b"\n", b"line\n", b"paragraph\n\n"] {
            for split in [TextSplit::File, TextSplit::Lines, TextSplit::BlankLines] {
                let format = Format::Text(split);
                let text = Repeat { pattern, at: 0, left: TOTAL };
                let mut stream = Pieces::of_reader("input", Box::new(text), &format, &*tokenizer);
                let (mut handed_out, mut longest) = (0, 0);
                while let Some(piece) = stream.next() {
                    let piece = piece.unwrap();
                    let At::Byte(start) = piece.place.at else { panic!() };
                    handed_out = start + piece.bytes.len() as u64;
                    longest = longest.max(piece.bytes.len());
                    let held = stream.consumed() - handed_out;
                    assert!(held <= (LONGEST_PIECE as u64) + 3 * FRAGMENT, "{held} bytes held");
                    if tokenizer.needs_utf8() && pattern[0] >= 0x80 && piece.position == Position::Inside {
                        std::str::from_utf8(&piece.bytes).unwrap();
                    }
                }
                assert!(longest <= LONGEST_PIECE + FRAGMENT as usize);
                assert_eq!(stream.consumed(), TOTAL as u64);
                let dropped = if pattern.ends_with(b"\n") && split != TextSplit::File { TOTAL as u64 } else { 3 };
                assert!(handed_out + dropped >= TOTAL as u64);
            }
        }
    }
}

/// The tokens of a long text do not depend on how it was cut.
#[test]
fn pieces_have_the_tokens_of_the_whole() {
    let sentence = "The plot didn't thicken:\n\n  17 men\u{3000}  sat\t\tstill. 中文也是。\n";
    let text = sentence.repeat(20_000);
    for &(name, _) in Name::ALL {
        let tokenizer = tokenizer(name);
        let mut whole = Vec::new();
        tokenizer.encode(text.as_bytes(), &mut whole).unwrap();
        let parts = pieces(io::Cursor::new(text.clone()), &Format::Text(TextSplit::File), &*tokenizer);
        assert!(parts.len() > 3);
        let mut tokens = Vec::new();
        parts.iter().for_each(|piece| tokenizer.encode(&piece.bytes, &mut tokens).unwrap());
        assert_eq!(tokens, whole, "{name}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_line() {
    let format = Format::Jsonl { field: "text".into() };
    let found = pieces(&b"\xEF\xBB\xBF{}\n\xEF\xBB\xBF{}\n"[..], &format, &ByTokens);
    assert_eq!(found.iter().map(|p| p.bytes.len()).collect::<Vec<_>>(), [3, 6], "only at the beginning");
}

#[test]
fn lines_of_jsonl_carry_their_numbers() {
    let format = Format::Jsonl { field: "text".into() };
    let found = pieces("{}\n\n \n[]".as_bytes(), &format, &ByTokens);
    let lines: Vec<_> = found.iter().map(|piece| (piece.bytes.as_slice(), piece.place.at, piece.document)).collect();
    assert_eq!(lines, [(&b"{}\n"[..], At::Line(1), 0), (b"[]", At::Line(4), 1)]);
    let endless = Pieces::of_reader("e.jsonl", Box::new(io::repeat(b'x')), &format, &ByTokens).next();
    assert_eq!(endless.unwrap().unwrap_err().to_string(), "e.jsonl:1: the line is longer than 64 MiB");
}

#[test]
fn files_follow_each_other_and_missing_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b, missing) = (folder.path().join("a"), folder.path().join("b"), folder.path().join("c"));
    std::fs::write(&a, "first").unwrap();
    std::fs::write(&b, "second").unwrap();
    let format = Format::Text(TextSplit::File);
    let found: Vec<_> = Pieces::of_files(&[a.clone(), b], &format, &ByTokens).map(Result::unwrap).collect();
    assert_eq!(found.iter().map(|piece| (piece.document, piece.bytes.len())).collect::<Vec<_>>(), [(0, 5), (1, 6)]);
    let results: Vec<_> = Pieces::of_files(&[a, missing], &format, &ByTokens).take(2).collect();
    let error = results[1].as_ref().unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("/c: "), "{error}");
    let error = Pieces::of_files(&[folder.path().into()], &format, &ByTokens).next().unwrap().unwrap_err();
    assert!(error.to_string().ends_with("is a folder: name the files in it"));
}
