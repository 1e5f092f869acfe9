use super::Value;
use engine::{Error, Result};

/// How deep arrays and objects may be nested; bounds the recursion of the parser.
pub const MAX_DEPTH: usize = 128;

/// Reads exactly one value, from text or from bytes that must be UTF-8.
///
/// # Errors
/// With line, column (in characters) and byte offset of the first thing that is wrong.
pub fn parse(input: impl AsRef<[u8]>) -> Result<Value> {
    let bytes = input.as_ref();
    let text = std::str::from_utf8(bytes).map_err(|e| error_at(bytes, e.valid_up_to(), "invalid UTF-8"))?;
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.expected("the end of the input"));
    }
    Ok(value)
}

fn error_at(bytes: &[u8], at: usize, what: &str) -> Error {
    let before = &bytes[..at];
    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
    // What stands before `at` is valid UTF-8: count the bytes that begin a character.
    let column = 1 + before[line_start..].iter().filter(|&&b| b & 0xC0 != 0x80).count();
    Error::new(format!("line {line}, column {column} (byte {at}): {what}"))
}

struct Parser<'a> {
    text: &'a str,
    /// Byte offset of the next character, always on a character boundary.
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn error(&self, at: usize, what: &str) -> Error {
        error_at(self.text.as_bytes(), at, what)
    }

    fn expected(&self, what: &str) -> Error {
        let found = self.text[self.at..].chars().next().map_or("the end of the input".into(), |c| format!("{c:?}"));
        self.error(self.at, &format!("expected {what}, found {found}"))
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Steps over `byte` if it comes next, after white space.
    fn take(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Value> {
        self.skip_space();
        match self.peek() {
            Some(b'[' | b'{') if depth == MAX_DEPTH => {
                Err(self.error(self.at, &format!("nested deeper than {MAX_DEPTH} levels")))
            }
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => {
                let words = [("null", Value::Null), ("true", Value::Bool(true)), ("false", Value::Bool(false))];
                for (word, value) in words {
                    if self.text[self.at..].starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                Err(self.expected("a value"))
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut items = Vec::new();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.expected("',' or ']'"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value> {
        self.at += 1;
        let mut entries = Vec::new();
        let mut key_offsets = Vec::new();
        if self.take(b'}') {
            return Ok(Value::Object(entries));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.expected("a key in double quotes"));
            }
            key_offsets.push(self.at);
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.expected("':'"));
            }
            entries.push((key, self.value(depth + 1)?));
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return Err(self.expected("',' or '}'"));
            }
        }
        // Sorting finds duplicates in n·log n: comparing all pairs would let a hostile file take quadratic time.
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_by(|&i, &j| entries[i].0.cmp(&entries[j].0));
        match order.windows(2).find(|pair| entries[pair[0]].0 == entries[pair[1]].0) {
            Some(pair) => {
                Err(self.error(key_offsets[pair[1]], &format!("the key {:?} appears twice", entries[pair[1]].0)))
            }
            None => Ok(Value::Object(entries)),
        }
    }

    fn string(&mut self) -> Result<String> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            let Some(run) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ') else {
                return Err(self.error(start, "a string without its closing quote"));
            };
            out.push_str(&rest[..run]);
            self.at += run;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                _ => return Err(self.error(self.at, "a control character in a string must be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<char> {
        let start = self.at;
        self.at += 1;
        let letter = self.peek();
        let c = match letter {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => return Err(self.expected("one of \"\\/bfnrtu after a backslash")),
        };
        self.at += 1;
        Ok(c)
    }

    /// `\uXXXX`, or two of them for a character beyond 16 bits; `self.at` is on the `u`.
    fn unicode_escape(&mut self, start: usize) -> Result<char> {
        let mut code = self.four_hex_digits()?;
        if (0xD800..0xDC00).contains(&code) && self.text[self.at..].starts_with("\\u") {
            self.at += 1;
            let low = self.four_hex_digits()?;
            if (0xDC00..0xE000).contains(&low) {
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            }
        }
        char::from_u32(code).ok_or_else(|| self.error(start, "half of a surrogate pair without the other"))
    }

    fn four_hex_digits(&mut self) -> Result<u32> {
        self.at += 1;
        let mut code = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|b| char::from(b).to_digit(16));
            code = code * 16 + digit.ok_or_else(|| self.expected("four hexadecimal digits after \\u"))?;
            self.at += 1;
        }
        Ok(code)
    }

    fn number(&mut self) -> Result<Value> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        if self.peek() == Some(b'0') {
            self.at += 1;
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.error(start, "a number must not begin with a superfluous 0"));
            }
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
        }
        match self.text[start..self.at].parse::<f64>() {
            Ok(x) if x.is_finite() => Ok(Value::Number(x)),
            _ => Err(self.error(start, "a number beyond what 64-bit floating point can hold")),
        }
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutate;

    fn error(input: impl AsRef<[u8]>) -> String {
        parse(input).unwrap_err().to_string()
    }

    #[test]
    fn reads_every_kind_of_value() {
        let v = parse(" {\"a\": [null, true, false, -0.5e+1, 12],\r\n\t\"b\": {\"\\u00e9\\n\": \"\\ud83d\\ude00 é\"}, \"c\": [], \"d\": {}} ").unwrap();
        let a = [Value::Null, true.into(), false.into(), (-5).into(), 12.into()];
        assert_eq!(v.field("a").unwrap().as_array().unwrap(), a);
        assert_eq!(v.field("b").unwrap().read("é\n", Value::as_str).unwrap(), "😀 é");
        assert_eq!(v.field("c"), Ok(&Value::Array(vec![])));
        assert_eq!(v.field("d"), Ok(&Value::Object(vec![])));
        assert_eq!(parse("9007199254740991").unwrap().as_u64(), Ok(super::super::MAX_INTEGER));
        assert_eq!(parse(b"\"x\"".as_slice()).unwrap().as_str(), Ok("x"));
    }

    #[test]
    fn says_where_and_what() {
        assert_eq!(error("{\"é\": 1,\n \"é\" 2}"), "line 2, column 6 (byte 16): expected ':', found '2'");
        assert_eq!(error("{\"a\": 1, \"b\": 2, \"a\": 3}"), "line 1, column 18 (byte 17): the key \"a\" appears twice");
        assert_eq!(error(b"[\"ab\xff\"]"), "line 1, column 5 (byte 4): invalid UTF-8");
        assert_eq!(error(""), "line 1, column 1 (byte 0): expected a value, found the end of the input");
        assert_eq!(error("1 2"), "line 1, column 3 (byte 2): expected the end of the input, found '2'");
    }

    #[test]
    fn refuses_what_is_not_json() {
        let bad = [
            "[1,]",
            "[1 2]",
            "{,}",
            "{\"a\":1,}",
            "{a:1}",
            "'a'",
            "\"a",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\udc00\"",
            "\"\\u12g4\"",
            "\"\\u12",
            "01",
            "-",
            "+1",
            "1.",
            ".5",
            "1e",
            "1e999",
            "-1e999",
            "NaN",
            "Infinity",
            "nul",
            "truefalse",
            "\u{feff}1",
            "\"a\nb\"",
            "\"\\",
            "[",
            "{",
            "{\"a\"",
            "{\"a\":",
            "[1",
            "\u{b}1",
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(parse(nested(MAX_DEPTH)).is_ok());
        assert!(error(nested(MAX_DEPTH + 1)).contains("nested deeper than 128"));
        assert!(error("{\"a\":".repeat(100_000)).contains("nested"));
    }

    /// Damaged input is either refused or a value that survives being written and read again.
    #[test]
    fn damaged_input_never_panics() {
        let seed = br#"{"a": [1, -2.5e-3, "\u00e9\ud83d\ude00 \\ \"q\""], "nested": {"k": {"k": [[], {}, null, true]}}, "z": 0}"#;
        let mut accepted = 0;
        for case in 0..mutate::cases(20_000) {
            let input = mutate::damage(seed, case);
            if let Ok(value) = parse(&input) {
                accepted += 1;
                assert_eq!(parse(value.to_string()).as_ref(), Ok(&value), "case {case}");
                assert_eq!(parse(value.pretty()), Ok(value), "case {case}");
            }
        }
        assert!(accepted > 100, "only {accepted} inputs got past the parser: the damage is too coarse to test it");
    }
}
