use super::{MAX_INTEGER, Value};
use std::fmt::{self, Write};

/// Compact, on one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(x) => write!(f, "{x}"),
            Self::Number(x) => number(f, *x),
            Self::String(x) => string(f, x),
            Self::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "[" } else { "," })?;
                }
                f.write_str(if items.is_empty() { "[]" } else { "]" })
            }
            Self::Object(entries) => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if i == 0 { "{" } else { "," })?;
                    string(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_str(if entries.is_empty() { "{}" } else { "}" })
            }
        }
    }
}

impl Value {
    /// For people: one entry a line, indented by two spaces, arrays of plain values on one line, a newline at the end.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write_pretty(&mut out, 0).expect("writing to a string does not fail");
        out.push('\n');
        out
    }

    fn write_pretty(&self, out: &mut String, indent: usize) -> fmt::Result {
        let nested = |v: &Self| matches!(v, Self::Array(_) | Self::Object(_));
        match self {
            Self::Array(items) if items.iter().any(nested) => {
                for (i, item) in items.iter().enumerate() {
                    write!(out, "{}\n{:2$}", if i == 0 { "[" } else { "," }, "", indent + 2)?;
                    item.write_pretty(out, indent + 2)?;
                }
                write!(out, "\n{:1$}]", "", indent)
            }
            Self::Array(items) => {
                let items: Vec<String> = items.iter().map(Self::to_string).collect();
                write!(out, "[{}]", items.join(", "))
            }
            Self::Object(entries) if !entries.is_empty() => {
                for (i, (key, value)) in entries.iter().enumerate() {
                    write!(out, "{}\n{:2$}", if i == 0 { "{" } else { "," }, "", indent + 2)?;
                    string(out, key)?;
                    out.push_str(": ");
                    value.write_pretty(out, indent + 2)?;
                }
                write!(out, "\n{:1$}}}", "", indent)
            }
            plain => write!(out, "{plain}"),
        }
    }
}

/// Rust's `{:?}` is the shortest text that reads back as the same f64, and valid JSON; integers go without their ".0".
fn number(out: &mut impl Write, x: f64) -> fmt::Result {
    if !x.is_finite() {
        out.write_str("null")
    } else if x.fract() == 0.0 && x.abs() <= MAX_INTEGER as f64 && !(x == 0.0 && x.is_sign_negative()) {
        write!(out, "{}", x as i64)
    } else {
        write!(out, "{x:?}")
    }
}

fn string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ') {
        out.write_str(&rest[..at])?;
        match rest.as_bytes()[at] {
            b'\n' => out.write_str("\\n")?,
            b'\t' => out.write_str("\\t")?,
            b'\r' => out.write_str("\\r")?,
            c if c < b' ' => write!(out, "\\u{c:04x}")?,
            c => write!(out, "\\{}", char::from(c))?,
        }
        rest = &rest[at + 1..];
    }
    out.write_str(rest)?;
    out.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use engine::rng::Stream;

    #[test]
    fn compact_and_pretty() {
        let v = Value::object([
            ("a", Value::Array(vec![1.into(), 2.5.into(), "x\"\\\n\u{1}é".into()])),
            ("b", Value::object([("nan", f64::NAN.into()), ("inf", f64::INFINITY.into())])),
            ("c", Value::Array(vec![Value::Array(vec![])])),
            ("d", Value::Object(vec![])),
        ]);
        let compact = r#"{"a":[1,2.5,"x\"\\\n\u0001é"],"b":{"nan":null,"inf":null},"c":[[]],"d":{}}"#;
        assert_eq!(v.to_string(), compact);
        let pretty = "{\n  \"a\": [1, 2.5, \"x\\\"\\\\\\n\\u0001é\"],\n  \"b\": {\n    \"nan\": null,\n    \"inf\": null\n  },\n  \"c\": [\n    []\n  ],\n  \"d\": {}\n}\n";
        assert_eq!(v.pretty(), pretty);
        assert_eq!(parse(pretty).unwrap().to_string(), compact);
    }

    #[test]
    fn every_finite_number_reads_back_with_the_same_bits() {
        let special =
            [0.0, -0.0, 0.1, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, 9_007_199_254_740_993.0, -1e16, 1e21, 4e-4];
        let random = (0..20_000).map(|i| {
            let w = Stream::new(3, 1).words(i);
            f64::from_bits(u64::from(w[0]) << 32 | u64::from(w[1]))
        });
        for x in special.into_iter().chain(random).filter(|x| x.is_finite()) {
            let text = Value::Number(x).to_string();
            assert_eq!(parse(&text).unwrap().as_f64().unwrap().to_bits(), x.to_bits(), "{text}");
        }
    }
}
