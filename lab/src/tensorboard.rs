//! A run's metrics as TensorBoard reads them: an event file in the folder `tensorboard` of the run.
//!
//! An event file is a sequence of records: the length of the data in 8 bytes and a checksum of these, then the data, then
//! their checksum; all little-endian (the record format of TensorFlow, `tfrecord`). The data are messages of the kind `Event`
//! in the encoding of protocol buffers, of which this file writes the few fields that it takes.

use engine::{Error, Result};
use ltm::run::Line;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder within a run's.
const FOLDER: &str = "tensorboard";

/// How names of event files begin; the time follows in seconds, by which they are read in order.
const PREFIX: &str = "events.out.tfevents.";

/// An event file that is open for writing.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Whether the run in the folder at `run` has an event file.
    pub fn exist(run: &Path) -> bool {
        !files(&run.join(FOLDER)).is_empty()
    }

    /// Begins an event file of the run in the folder at `run` with the metrics so far. It takes the place of an older one,
    /// which may tell of steps that are done again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(run: &Path, lines: &[Line]) -> Result<Self> {
        let folder = run.join(FOLDER);
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, &e))?;
        for old in files(&folder) {
            fs::remove_file(&old).map_err(|e| Error::io("remove", &old, &e))?;
        }
        let path = folder.join(format!("{PREFIX}{:010}.ltm", now() as u64));
        let file = File::create(&path).map_err(|e| Error::io("create", &path, &e))?;
        let mut events = Self { file, path };
        events.append(&Message::event(0).bytes(event::FILE_VERSION, b"brain.Event:2"))?;
        // A reader forgets what it has seen of an older file.
        let start = Message::default().integer(session_log::STATUS, session_log::START);
        events.append(&Message::event(0).bytes(event::SESSION_LOG, &start.0))?;
        lines.iter().try_for_each(|line| events.write(line))?;
        Ok(events)
    }

    /// Appends what a line of the metrics says: every number, under its name behind `train/` or `validation/`, and every
    /// sentence.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        let about = match line {
            Line::Step(_) => "train",
            Line::Validation(_) => "validation",
            Line::Trouble(_) => "trouble",
        };
        let value = |(name, value): (String, Value)| {
            let entry = Message::default().bytes(entry::TAG, format!("{about}/{name}").as_bytes());
            match value {
                Value::String(text) => ["skipped", "message"].contains(&&*name).then(|| entry.text(&text)),
                number => Some(entry.float(entry::SIMPLE_VALUE, number.as_f64().unwrap_or(f64::NAN) as f32)),
            }
        };
        let values = line.entries().into_iter().filter_map(value);
        let summary = values.fold(Message::default(), |all, value| all.bytes(summary::VALUE, &value.0));
        self.append(&Message::event(line.step()).bytes(event::SUMMARY, &summary.0))
    }

    fn append(&mut self, message: &Message) -> Result<()> {
        self.file.write_all(&record(&message.0)).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// The event files in a folder; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)).map(|entry| entry.path()).collect()
}

/// Seconds since 1970; 0 on a machine that thinks it is earlier.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Numbers of the fields of `Event`.
mod event {
    pub const WALL_TIME: u32 = 1;
    pub const STEP: u32 = 2;
    pub const FILE_VERSION: u32 = 3;
    pub const SUMMARY: u32 = 5;
    pub const SESSION_LOG: u32 = 7;
}

/// Of `SessionLog`, whose `START` makes readers forget what they know of this step and later ones.
mod session_log {
    pub const STATUS: u32 = 1;
    pub const START: u64 = 1;
}

/// Of `Summary`.
mod summary {
    pub const VALUE: u32 = 1;
}

/// Of `Summary.Value`.
mod entry {
    pub const TAG: u32 = 1;
    pub const SIMPLE_VALUE: u32 = 2;
    pub const TENSOR: u32 = 8;
    pub const METADATA: u32 = 9;
}

/// Of `TensorProto`.
mod tensor {
    pub const DTYPE: u32 = 1;
    pub const STRING: u64 = 7;
    pub const STRING_VALUE: u32 = 8;
}

/// Of `SummaryMetadata` and its `PluginData`.
mod metadata {
    pub const PLUGIN_DATA: u32 = 1;
    pub const PLUGIN_NAME: u32 = 1;
}

/// A message of protocol buffers, encoded: fields one after the other, each behind its number and the kind of its bytes.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    /// An `Event` of this moment.
    fn event(step: u64) -> Self {
        Self::default().double(event::WALL_TIME, now()).integer(event::STEP, step)
    }

    fn integer(self, field: u32, x: u64) -> Self {
        self.key(field, 0).varint(x)
    }

    fn double(self, field: u32, x: f64) -> Self {
        self.key(field, 1).raw(&x.to_le_bytes())
    }

    fn float(self, field: u32, x: f32) -> Self {
        self.key(field, 5).raw(&x.to_le_bytes())
    }

    /// Bytes, text, or another message.
    fn bytes(self, field: u32, bytes: &[u8]) -> Self {
        self.key(field, 2).varint(bytes.len() as u64).raw(bytes)
    }

    /// A text, for TensorBoard's text plugin, in a `Summary.Value`.
    fn text(self, text: &str) -> Self {
        let tensor = Self::default().integer(tensor::DTYPE, tensor::STRING);
        let tensor = tensor.bytes(tensor::STRING_VALUE, text.as_bytes());
        let plugin = Self::default().bytes(metadata::PLUGIN_NAME, b"text");
        let metadata = Self::default().bytes(metadata::PLUGIN_DATA, &plugin.0);
        self.bytes(entry::TENSOR, &tensor.0).bytes(entry::METADATA, &metadata.0)
    }

    fn key(self, field: u32, kind: u32) -> Self {
        self.varint(u64::from(field << 3 | kind))
    }

    /// Seven bits a byte, the lowest first; the eighth says that more follow.
    fn varint(mut self, mut x: u64) -> Self {
        while x >= 0x80 {
            self.0.push(x as u8 | 0x80);
            x >>= 7;
        }
        self.0.push(x as u8);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// `data` as a record.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length).to_le_bytes()[..], data, &masked(data).to_le_bytes()].concat()
}

/// The checksum in the form that records carry: turned and shifted, as a checksum of bytes that contain their own is a poor one.
fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), RFC 3720, bit by bit: lines are short.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `n` bytes off the front.
    fn take<'a>(bytes: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (front, rest) = bytes.split_at(n);
        *bytes = rest;
        front
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut x = 0;
        for shift in (0..).step_by(7) {
            let byte = take(bytes, 1)[0];
            x |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                break;
            }
        }
        x
    }

    /// The fields of a message, by number; integers as eight bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => varint(&mut bytes).to_le_bytes().to_vec(),
                1 => take(&mut bytes, 8).to_vec(),
                2 => {
                    let length = varint(&mut bytes) as usize;
                    take(&mut bytes, length).to_vec()
                }
                5 => take(&mut bytes, 4).to_vec(),
                kind => panic!("no kind of field: {kind}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    fn field(message: &[u8], number: u64) -> Option<Vec<u8>> {
        fields(message).into_iter().find(|field| field.0 == number).map(|field| field.1)
    }

    /// What a reader gets to know from a run's only file: step, tag and value, of a text its length.
    fn told(run: &Path) -> Vec<(u64, String, f32)> {
        let [file] = &files(&run.join(FOLDER))[..] else { panic!("not one file") };
        let bytes = fs::read(file).unwrap();
        let mut rest = &bytes[..];
        let mut told = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            let data = &rest[12..12 + length];
            assert_eq!(take(&mut rest, length + 16), record(data));
            let step = u64::from_le_bytes(field(data, 2).unwrap().try_into().unwrap());
            for (_, value) in field(data, 5).iter().flat_map(|summary| fields(summary)) {
                let tag = String::from_utf8(field(&value, 1).unwrap()).unwrap();
                let scalar = field(&value, 2).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
                let text = || field(&field(&value, 8).unwrap(), 8).unwrap().len() as f32;
                told.push((step, tag, scalar.unwrap_or_else(text)));
            }
        }
        told
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // The first bytes of every file that TensorFlow wrote: a record of 24 bytes that tells the version.
        assert_eq!(record(&[0; 24])[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22]);
    }

    #[test]
    fn every_number_and_sentence_is_told() {
        let run = tempfile::tempdir().unwrap();
        let lines: Vec<Line> = [
            r#"{"step":300,"loss":1.5,"nll":1,"kl":0.5,"bits_per_byte":2,"tokens":70000,"grad_norm":3,"rate":1e-3,"fast_rate":0.5,"seconds":2,"tokens_per_second":35000,"state":"00ff","skipped":"dull"}"#,
            r#"{"step":300,"protocol":"elbo","sequences":4,"loss":2.5,"nll":2,"kl":null,"draw_error":0.25,"bits_per_byte":4,"nats_per_sequence":60}"#,
            r#"{"step":300,"trouble":"latents_ignored","message":"so it is"}"#,
        ]
        .map(|line| ltm::json::from_bytes(line).unwrap())
        .into();
        let mut events = Events::begin(run.path(), &lines[..1]).unwrap();
        lines[1..].iter().for_each(|line| events.write(line).unwrap());
        let first = told(run.path());
        let values = |about: &str| {
            let of = first.iter().filter_map(|(step, tag, x)| Some((*step, tag.strip_prefix(about)?, *x)));
            of.map(|(step, tag, x)| format!("{step} {tag} {x}")).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(
            values("train/"),
            "300 loss 1.5, 300 nll 1, 300 kl 0.5, 300 bits_per_byte 2, 300 tokens 70000, 300 grad_norm 3, 300 rate 0.001, \
             300 fast_rate 0.5, 300 seconds 2, 300 tokens_per_second 35000, 300 skipped 4"
        );
        assert_eq!(
            values("validation/"),
            "300 sequences 4, 300 loss 2.5, 300 nll 2, 300 kl NaN, 300 draw_error 0.25, 300 bits_per_byte 4, \
             300 nats_per_sequence 60"
        );
        assert_eq!(values("trouble/"), "300 message 8");

        // A run that goes on begins a file of its own, which tells all of it.
        let again = Events::begin(run.path(), &lines).map(|_| told(run.path())).unwrap();
        assert_eq!(format!("{first:?}"), format!("{again:?}"));
        assert!(Events::exist(run.path()));

        let blocked = tempfile::tempdir().unwrap();
        fs::write(blocked.path().join(FOLDER), "in the way").unwrap();
        let error = Events::begin(blocked.path(), &[]).unwrap_err().to_string();
        assert!(error.contains(FOLDER) && !error.contains('\n'), "{error}");
        assert!(!Events::exist(blocked.path()));
    }
}
