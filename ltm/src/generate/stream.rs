//! Streams generated text: only whole characters, and no part of a stop string.

/// Turns pieces of bytes into printable text.
#[derive(Debug)]
pub struct TextStream {
    stops: Vec<Vec<u8>>,
    /// Bytes that may be a part of a character or of a stop string.
    pending: Vec<u8>,
}

impl TextStream {
    /// A stream that ends before the first occurrence of any of `stops`, which must not be empty.
    pub fn new(stops: &[String]) -> Self {
        Self { stops: stops.iter().map(|stop| stop.as_bytes().to_vec()).collect(), pending: Vec::new() }
    }

    /// Takes the next bytes; returns the printable text, and whether the text ends here.
    pub fn push(&mut self, bytes: &[u8]) -> (String, bool) {
        self.pending.extend_from_slice(bytes);
        let found = |stop: &Vec<u8>| self.pending.windows(stop.len()).position(|window| window == stop);
        if let Some(at) = self.stops.iter().filter_map(found).min() {
            self.pending.truncate(at);
            return (self.finish(), true);
        }
        let rest = self.pending.split_off(self.pending.len() - self.withheld());
        let text = self.finish();
        self.pending = rest;
        (text, false)
    }

    /// The remaining text at the end.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Number of bytes at the end that may become a stop string or a character.
    fn withheld(&self) -> usize {
        let stop_begins = |stop: &Vec<u8>| {
            let longest = (stop.len() - 1).min(self.pending.len());
            (1..=longest).rev().find(|&n| self.pending.ends_with(&stop[..n])).unwrap_or(0)
        };
        let stop = self.stops.iter().map(stop_begins).max().unwrap_or(0);
        stop.max(unfinished(&self.pending[..self.pending.len() - stop]) + stop)
    }
}

/// Length of an incomplete character at the end of `bytes`, if there is one.
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    if str::from_utf8(last).is_err_and(|error| error.error_len().is_none()) { last.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], bytes: &[u8]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut stream = TextStream::new(&stops);
        let mut shown = Vec::new();
        for byte in bytes {
            let (text, stopped) = stream.push(&[*byte]);
            shown.push(text);
            if stopped {
                return (shown, true);
            }
        }
        shown.push(stream.finish());
        (shown, false)
    }

    #[test]
    fn characters_come_whole() {
        let (shown, _) = run(&[], "aé→𝄞".as_bytes());
        assert_eq!(shown, ["a", "", "é", "", "", "→", "", "", "", "𝄞", ""]);
        assert_eq!(run(&[], b"a\xC3").0.concat(), "a\u{FFFD}");
        assert_eq!(run(&[], b"\x80\xFFb\xE2\x86c").0.concat(), "\u{FFFD}\u{FFFD}b\u{FFFD}c");
    }

    #[test]
    fn nothing_of_a_stop_string_is_shown() {
        let (shown, stopped) = run(&["END", "\n\n"], b"one E EN END two");
        assert_eq!((shown.concat().as_str(), stopped), ("one E EN ", true));
        // Held back only while it may still become a stop string.
        assert_eq!(shown[..7].concat(), "one E ");
        assert_eq!(run(&["END"], b"the EN").0.concat(), "the EN");
        assert_eq!(run(&["aab"], b"aaab!").0.concat(), "a");
        assert_eq!(run(&["é"], "caf\u{e8}é".as_bytes()).0.concat(), "caf\u{e8}");
    }
}
