use super::*;
use crate::text::tokenizer;
use ltm::config::Tokenizer as Name;
use ltm::data::Bytes;

/// All pieces, or the first error.
fn pieces(text: impl Into<Vec<u8>>, format: &Format, tokenizer: &dyn Tokenizer) -> Result<Vec<Piece>> {
    let pieces = Pieces::of_reader("in", io::Cursor::new(text.into()), format, tokenizer)?;
    pieces.map(|piece| piece.and_then(|piece| piece.bad.clone().map_or(Ok(piece), Err))).collect()
}

/// Documents from joined pieces, and where each begins.
fn documents(text: &str, split: TextSplit) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = Vec::new();
    let mut inside = false;
    for piece in pieces(text, &Format::Text(split), &Bytes).unwrap() {
        let part = String::from_utf8(piece.bytes).unwrap();
        if inside {
            all.last_mut().unwrap().0.push_str(&part);
        } else {
            all.push((part, piece.place.line));
        }
        assert_eq!(piece.document + 1, all.len() as u64);
        inside = !piece.is_last;
    }
    assert!(!inside, "the last piece ends its document");
    all
}

#[test]
fn text_is_split_as_asked() {
    let text = "\n\na b\r\nc\n \t\n\n\nd\n";
    let splits = [TextSplit::File, TextSplit::Lines, TextSplit::BlankLines];
    for (split, expected) in splits.into_iter().zip([
        &[(text, 1)][..],
        &[("a b", 3), ("c", 4), (" \t", 5), ("d", 8)],
        &[("a b\r\nc", 3), ("d", 8)],
    ]) {
        let expected: Vec<_> = expected.iter().map(|&(text, at)| (text.to_string(), at)).collect();
        assert_eq!(documents(text, split), expected);
        assert_eq!(documents("", split), []);
        assert_eq!(documents("no newline", split), [("no newline".to_string(), 1)]);
    }
    assert_eq!(documents("\n \n\n ", TextSplit::BlankLines), []);
}

/// The buffered text stays below a constant size for any text.
#[test]
fn memory_does_not_depend_on_the_size_of_a_document() {
    const TOTAL: usize = 6 << 20;
    for tokenizer in [Name::Bytes, Name::Gpt2].map(tokenizer) {
        for pattern in [&b"x"[..], b"some words ", b"\xe4\xb8\xad", b"\n", b"line\n", b"paragraph\n\n"] {
            for split in [TextSplit::File, TextSplit::Lines, TextSplit::BlankLines] {
                let format = Format::Text(split);
                let text = io::Cursor::new(pattern.repeat(TOTAL.div_ceil(pattern.len()))).take(TOTAL as u64);
                let mut stream = Pieces::of_reader("in", text, &format, &*tokenizer).unwrap();
                let drops_lines = pattern.ends_with(b"\n") && split != TextSplit::File;
                let mut handed_out = 0;
                while let Some(piece) = stream.next() {
                    let piece = piece.unwrap();
                    handed_out += piece.bytes.len() as u64;
                    assert!(piece.bytes.len() <= LONGEST_PIECE + FRAGMENT as usize);
                    let held = stream.consumed() - handed_out;
                    assert!(drops_lines || held <= (LONGEST_PIECE as u64) + 3 * FRAGMENT, "{held} bytes held");
                    if tokenizer.needs_utf8() && pattern[0] >= 0x80 && !piece.is_last {
                        std::str::from_utf8(&piece.bytes).unwrap();
                    }
                }
                assert_eq!(stream.consumed(), TOTAL as u64);
                assert!(drops_lines || handed_out + 3 >= TOTAL as u64);
            }
        }
    }
}

#[test]
fn lines_of_jsonl_carry_their_numbers() {
    let format = Format::Jsonl { field: "text".into() };
    let found = pieces("{}\n\n \n[]", &format, &Bytes).unwrap();
    let lines: Vec<_> = found.iter().map(|piece| (piece.bytes.as_slice(), piece.place.line, piece.document)).collect();
    assert_eq!(lines, [(&b"{}"[..], 1, 0), (b"[]", 4, 1)]);
}

#[test]
fn records_without_end_do_not_fill_the_memory() {
    for (format, first, message) in [
        (Format::Jsonl { field: "text".into() }, "x", "in:1: the line is longer than 64 MiB"),
        (
            Format::csv(vec![Column::Number(1)], false).unwrap(),
            "\"",
            "in:1: the record is longer than 64 MiB: is a quote open?",
        ),
    ] {
        let endless = first.as_bytes().chain(io::repeat(b'x'));
        let error = Pieces::of_reader("in", endless, &format, &Bytes).unwrap().next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

/// For any place of the quote and any end of the file; a quote within a field is an ordinary character.
#[test]
fn quotes_that_are_never_closed() {
    for (text, header, line) in [
        ("id,text\n1,\"abc\n2,def\n3,ghi\n", true, Some(2)),
        ("id,text\n1,abc\n2,\"def", true, Some(3)),
        ("id,text\n1,abc\n\"2,def\n", true, Some(3)),
        ("1,abc\r\n2,\"def\r\n", false, Some(2)),
        ("1,\"", false, Some(1)),
        ("1,\"a\"\"\n\n", false, Some(1)),
        ("\"id,text\n1,abc\n", true, Some(1)),
        ("1,\"abc\"", false, None),
        ("1,\"abc\n\"\n\n", false, None),
        ("1,\"\"", true, None),
        ("1,a\"b\r\n", false, None),
        ("1,", true, None),
        ("\n", true, None),
        ("", false, None),
    ] {
        let format = Format::csv(vec![Column::Number(1)], header).unwrap();
        let said = pieces(text, &format, &Bytes).map(|_| ()).map_err(|error| error.to_string());
        let expected = line.map_or(Ok(()), |line| Err(format!("in:{line}: a quote is opened and never closed")));
        assert_eq!(said, expected, "{text:?}");
    }
}

/// For all line endings, including empty and quoted lines.
#[test]
fn records_of_csv_carry_their_numbers() {
    for end in ["\n", "\r\n"] {
        for header in [false, true] {
            let text = ["a,b", "1,2", "", "\"3", "3\",4", "5,6", "", "", "7,8"].join(end);
            for text in [text.clone() + end, text] {
                let found = pieces(&*text, &Format::csv(vec![Column::Number(1)], header).unwrap(), &Bytes).unwrap();
                let lines: Vec<u64> = found.iter().map(|piece| piece.place.line).collect();
                assert_eq!(lines, [1, 2, 4, 6, 9][usize::from(header)..], "{text:?}");
            }
            let bad = ["a,b", "1,2", "", "3", ""].join(end);
            let found = pieces(&*bad, &Format::csv(vec![Column::Number(1)], header).unwrap(), &Bytes);
            assert_eq!(found.unwrap_err().to_string(), "in:4: the record has 1 fields, the first has 2");
        }
    }
}

#[test]
fn columns_by_place_and_by_name() {
    let read = |text: &str, column: Column, header| {
        let found = pieces(text, &Format::csv(vec![column], header)?, &Bytes)?;
        Ok::<_, Error>(found.into_iter().map(|p| String::from_utf8(p.bytes).unwrap()).collect::<Vec<_>>())
    };
    let text = "id,text\n1,\"a, \"\"b\"\"\nc\"\n2,plain\r\n3,\n";
    let expected = ["a, \"b\"\nc", "plain", ""];
    assert_eq!(read(text, Column::Name("text".into()), false).unwrap(), expected);
    assert_eq!(read(text, Column::Number(2), true).unwrap(), expected);
    assert_eq!(read(text, Column::Number(1), false).unwrap(), ["id", "1", "2", "3"]);
    for (text, column, header, message) in [
        ("a,b\n1,2\n", Column::Number(0), false, "column 0: columns are counted from 1"),
        ("a,b\n1,2\n", Column::Name("c".into()), false, "in:1: no column \"c\"; there are: a, b"),
        ("a,b\n1,2\n", Column::Number(5), true, "in:2: there is no column 5, the record has 2"),
        ("a,b\n1,2\n3\n", Column::Number(1), false, "in:3: the record has 1 fields, the first has 2"),
    ] {
        assert_eq!(read(text, column, header).unwrap_err().to_string(), message);
    }
}

#[test]
fn files_follow_each_other_and_missing_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, missing] = ["a", "b", "c"].map(|name| folder.path().join(name));
    std::fs::write(&a, "first").unwrap();
    std::fs::write(&b, "second").unwrap();
    let format = Format::Text(TextSplit::File);
    let found = |files: &[PathBuf]| Pieces::of_files(files, &format, &Bytes).collect::<Result<Vec<_>>>();
    let both = found(&[a.clone(), b]).unwrap();
    assert_eq!(both.iter().map(|piece| (piece.document, piece.bytes.len())).collect::<Vec<_>>(), [(0, 5), (1, 6)]);
    let error = found(&[a, missing]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("/c: "), "{error}");
    let error = found(&[folder.path().into()]).unwrap_err().to_string();
    assert!(error.contains("is a folder, not a file"), "{error}");
}
