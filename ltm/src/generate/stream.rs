//! Text as it comes out of a model: whole characters only, and nothing of a stop string.

/// Turns pieces of bytes into text that can be shown at once.
pub(super) struct TextStream {
    stops: Vec<Vec<u8>>,
    /// Bytes that may be a part of a character or of a stop string.
    pending: Vec<u8>,
}

/// What can be shown, and whether the text ends here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub text: String,
    pub stopped: bool,
}

impl TextStream {
    /// A stream that ends before the first of `stops` that comes.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).map(|stop| stop.as_bytes().to_vec());
        Self { stops: stops.collect(), pending: Vec::new() }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Shown {
        self.pending.extend_from_slice(bytes);
        let found = |stop: &Vec<u8>| self.pending.windows(stop.len()).position(|window| window == stop);
        if let Some(at) = self.stops.iter().filter_map(found).min() {
            self.pending.truncate(at);
            return Shown { text: self.finish(), stopped: true };
        }
        let ready = self.pending.len() - self.withheld();
        let text = String::from_utf8_lossy(&self.pending[..ready]).into_owned();
        self.pending.drain(..ready);
        Shown { text, stopped: false }
    }

    /// What is left when nothing more comes.
    pub fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// How many bytes at the end may yet become a stop string or a character.
    fn withheld(&self) -> usize {
        let stop_begins = |stop: &Vec<u8>| {
            let longest = (stop.len() - 1).min(self.pending.len());
            (1..=longest).rev().find(|&n| self.pending.ends_with(&stop[..n])).unwrap_or(0)
        };
        let stop = self.stops.iter().map(stop_begins).max().unwrap_or(0);
        stop.max(unfinished(&self.pending[..self.pending.len() - stop]) + stop)
    }
}

/// Length of the character at the end of `bytes` that lacks bytes, if there is one.
fn unfinished(bytes: &[u8]) -> usize {
    for n in 1..=bytes.len().min(3) {
        let length = match bytes[bytes.len() - n] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            0x80..=0xBF => continue,
            _ => return 0,
        };
        return if n < length { n } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], bytes: &[u8]) -> (Vec<String>, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut stream = TextStream::new(&stops);
        let mut shown = Vec::new();
        for byte in bytes {
            let now = stream.push(&[*byte]);
            shown.push(now.text);
            if now.stopped {
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
        // Held back only while it may still become one.
        assert_eq!(shown[..7].concat(), "one E ");
        assert_eq!(run(&["END"], b"the EN").0.concat(), "the EN");
        assert_eq!(run(&["aab"], b"aaab!").0.concat(), "a");
        assert_eq!(run(&["", "é"], "caf\u{e8}é".as_bytes()).0.concat(), "caf\u{e8}");
    }
}
