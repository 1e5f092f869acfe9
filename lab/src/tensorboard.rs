//! Writes a run's metrics for TensorBoard: an event file in the folder `tensorboard` of the run.
//!
//! An event file is a sequence of records: the length of the data in 8 bytes and a checksum of these, then the data,
//! then their checksum; all little-endian (the record format of TensorFlow, `tfrecord`). The data are messages of the
//! kind `Event` in the encoding of protocol buffers: fields one after the other, each preceded by its number and wire
//! type.

use engine::{Error, Result};
use ltm::run::Line;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder within a run folder.
const FOLDER: &str = "tensorboard";

/// The prefix of event file names. The time in seconds follows, which gives their order.
const PREFIX: &str = "events.out.tfevents.";

// Numbers of fields: of `Event`,
const WALL_TIME: u8 = 1;
const STEP: u8 = 2;
const FILE_VERSION: u8 = 3;
const SUMMARY: u8 = 5;
const SESSION_LOG: u8 = 7;
// of `SessionLog` and `Summary`,
const STATUS: u8 = 1;
const VALUE: u8 = 1;
// and of `Summary.Value`.
const TAG: u8 = 1;
const SIMPLE_VALUE: u8 = 2;

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

    /// Starts an event file for the run in the folder at `run` with the metrics so far. It replaces an older file,
    /// which may have steps that are repeated.
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
        events.append(0, &bytes(FILE_VERSION, b"brain.Event:2"))?;
        // The status START makes a reader discard data of an older file.
        events.append(0, &bytes(SESSION_LOG, &integer(STATUS, 1)))?;
        lines.iter().try_for_each(|line| events.write(line))?;
        Ok(events)
    }

    /// Appends every number of a line of the metrics, with the prefix `train/` or `validation/`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, line: &Line) -> Result<()> {
        self.append(line.step(), &bytes(SUMMARY, &summary(line)))
    }

    /// Appends an `Event` with the current time and one more field.
    fn append(&mut self, step: u64, field: &[u8]) -> Result<()> {
        let event = [&double(WALL_TIME, now()), &integer(STEP, step), field].concat();
        self.file.write_all(&record(&event)).map_err(|e| Error::io("write", &self.path, &e))
    }
}

/// The event files in a folder; none if there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)).map(|entry| entry.path()).collect()
}

/// Seconds since 1970; 0 if the clock is earlier.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The `Summary` of a line: a `Value` for every number.
fn summary(line: &Line) -> Vec<u8> {
    let about = match line {
        Line::Step(_) => "train",
        Line::Validation(_) => "validation",
        Line::Trouble(_) => "trouble",
        Line::Sample(_) => "sample",
    };
    let value = |(name, value): (String, Value)| {
        if value.is_string() {
            return Vec::new();
        }
        let tag = bytes(TAG, format!("{about}/{name}").as_bytes());
        bytes(VALUE, &[tag, float(SIMPLE_VALUE, value.as_f64().unwrap_or(f64::NAN) as f32)].concat())
    };
    line.entries().into_iter().flat_map(value).collect()
}

/// A field of a message: its number (below 16) and wire type, then its bytes.
fn field(number: u8, kind: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | kind], content].concat()
}

fn integer(number: u8, x: u64) -> Vec<u8> {
    field(number, 0, &varint(x))
}

fn double(number: u8, x: f64) -> Vec<u8> {
    field(number, 1, &x.to_le_bytes())
}

fn float(number: u8, x: f32) -> Vec<u8> {
    field(number, 5, &x.to_le_bytes())
}

/// Bytes, text, or another message.
fn bytes(number: u8, bytes: &[u8]) -> Vec<u8> {
    field(number, 2, &[&varint(bytes.len() as u64), bytes].concat())
}

/// Seven bits per byte, the lowest first; the eighth bit is set if more follow.
fn varint(mut x: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while x >= 0x80 {
        bytes.push(x as u8 | 0x80);
        x >>= 7;
    }
    bytes.push(x as u8);
    bytes
}

/// `data` as a record.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length, &masked(&length).to_le_bytes()[..], data, &masked(data).to_le_bytes()].concat()
}

/// The masked checksum of the record format: rotated and shifted, so that checksums of data with embedded checksums
/// work well.
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

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4, and the check value of the catalogue of CRCs.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // The first bytes of every file that TensorFlow wrote: a record of 24 bytes with the version.
        assert_eq!(record(&[0; 24])[..12], [24, 0, 0, 0, 0, 0, 0, 0, 0xA3, 0x7F, 0x4B, 0x22]);
    }

    /// As Google's own library encodes them.
    #[test]
    fn every_number_is_told() {
        let lines: [Line; 3] = [
            r#"{"step":300,"loss":1,"nll":1,"kl":0.5,"bits_per_byte":2,"tokens":70000,"grad_norm":3,"rate":1,"fast_rate":0.5,"seconds":2,"tokens_per_second":35000,"state":"00ff","skipped":"dull"}"#,
            r#"{"step":300,"protocol":"elbo","sequences":4,"loss":2.5,"nll":2,"kl":null,"draw_error":null,"bits_per_byte":4,"nats_per_sequence":60,"kl_per_sequence":8}"#,
            r#"{"step":300,"trouble":"latents_ignored","message":"so it is"}"#,
        ]
        .map(|line| ltm::json::from_bytes(line).unwrap());
        let [step, validation] = [0, 1].map(|i| summary(&lines[i]));
        assert_eq!(
            validation,
            b"\n\x1f\n\x18validation/bits_per_byte\x15\0\0\x80@\n\x1c\n\x15validation/draw_error\x15\0\0\xc0\x7f\
            \n\x14\n\rvalidation/kl\x15\0\0\xc0\x7f\n!\n\x1avalidation/kl_per_sequence\x15\0\0\0A\
            \n\x16\n\x0fvalidation/loss\x15\0\0 @\
            \n#\n\x1cvalidation/nats_per_sequence\x15\0\0pB\n\x15\n\x0evalidation/nll\x15\0\0\0@\
            \n\x1b\n\x14validation/sequences\x15\0\0\x80@"
        );
        let step = String::from_utf8_lossy(&step);
        let names: Vec<&str> = step.split("train/").skip(1).map(|rest| rest.split('\x15').next().unwrap()).collect();
        let expected = "bits_per_byte fast_rate grad_norm kl loss nll rate seconds tokens tokens_per_second";
        assert_eq!(names.join(" "), expected);
        assert_eq!(
            [bytes(1, &[0; 300])[..3].to_vec(), double(1, 1.5)],
            [b"\n\xac\x02".to_vec(), b"\t\0\0\0\0\0\0\xf8?".to_vec()]
        );

        // A resumed run starts a new file with all metrics.
        let run = tempfile::tempdir().unwrap();
        let size =
            || files(&run.path().join(FOLDER)).iter().map(|file| file.metadata().unwrap().len()).collect::<Vec<_>>();
        let mut events = Events::begin(run.path(), &lines[..1]).unwrap();
        lines[1..].iter().for_each(|line| events.write(line).unwrap());
        let first = size();
        Events::begin(run.path(), &lines).unwrap();
        assert!(Events::exist(run.path()) && first.len() == 1 && first == size(), "{first:?}");
    }
}
