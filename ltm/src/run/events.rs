//! The metrics as TensorBoard reads them: event files in a run's folder `tensorboard`.
//!
//! An event file is a sequence of records: the length of the data in 8 bytes and a checksum of these, then the data, then
//! their checksum; all little-endian (the record format of TensorFlow, `tfrecord`). The data are messages of the kind `Event`
//! in the encoding of protocol buffers, of which this file writes the six fields that it takes.

use crate::json::Value;
use engine::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder within a run's.
pub(super) const FOLDER: &str = "tensorboard";

/// How names of event files begin; the time follows in seconds, by which they are read in order.
const PREFIX: &str = "events.out.tfevents.";

/// Entries of the metrics that are sentences; other texts are names and checksums, which no chart shows.
const SENTENCES: [&str; 2] = ["message", "skipped"];

/// An event file that is open for writing. It ends with a whole record at any time that this process is not in the middle of
/// writing one.
#[derive(Debug)]
pub struct Events {
    file: File,
    path: PathBuf,
    /// Bytes of whole records.
    end: u64,
}

impl Events {
    /// Begins a new file in `folder`, which is made if need be, for the steps after step `after`. Readers forget what older
    /// files in it say about them.
    ///
    /// # Errors
    /// If it cannot be written; nothing of it is then left.
    pub fn create(folder: &Path, after: u64) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, &e))?;
        let newest = newest(folder).map_err(|e| Error::io("read", folder, &e))?;
        // Behind all others, even within a second or if the clock was set back.
        let second = newest.map_or(0, |newest| newest + 1).max(now() as u64);
        let path = folder.join(format!("{PREFIX}{second:010}.ltm"));
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let mut events = Self { file: file.map_err(|e| Error::io("create", &path, &e))?, path, end: 0 };
        let version = Message::event(0).bytes(event::FILE_VERSION, b"brain.Event:2");
        let start = Message::default().integer(session_log::STATUS, session_log::START);
        let start = Message::event(after + 1).bytes(event::SESSION_LOG, &start.0);
        match events.append(&[version, start]) {
            Ok(()) => Ok(events),
            Err(error) => Err(events.discard(error)),
        }
    }

    /// Whether `folder` has any event file.
    pub fn exist(folder: &Path) -> bool {
        newest(folder).is_ok_and(|newest| newest.is_some())
    }

    /// Removes the file, because of `error`.
    pub fn discard(self, error: Error) -> Error {
        let _ = fs::remove_file(&self.path);
        error
    }

    /// Appends what a line of the metrics says: every number, under the name of its key behind `train/` or `validation/`, and
    /// every sentence.
    ///
    /// # Errors
    /// If it cannot be written, or is no line of metrics. The file is then as it was, and still good to read.
    pub fn write(&mut self, line: &Value) -> Result<()> {
        let has = |key| line.get(key).is_some();
        let about = match (has("protocol"), has("trouble")) {
            (true, _) => "validation",
            (_, true) => "trouble",
            _ => "train",
        };
        let mut summary = Message::default();
        for (key, value) in line.as_object()? {
            let entry = Message::default().bytes(entry::TAG, format!("{about}/{key}").as_bytes());
            let entry = match value {
                _ if key == "step" => continue,
                Value::Number(x) => entry.float(entry::SIMPLE_VALUE, *x as f32),
                // A number that was not finite, read back.
                Value::Null => entry.float(entry::SIMPLE_VALUE, f32::NAN),
                Value::String(text) if SENTENCES.contains(&key.as_str()) => entry.text(text),
                _ => continue,
            };
            summary = summary.bytes(summary::VALUE, &entry.0);
        }
        let step = line.read("step", Value::as_u64)?;
        self.append(&[Message::event(step).bytes(event::SUMMARY, &summary.0)])
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io("write", &self.path, &e))
    }

    fn append(&mut self, messages: &[Message]) -> Result<()> {
        let records: Vec<u8> = messages.iter().flat_map(|message| record(&message.0)).collect();
        if let Err(e) = self.file.write_all(&records) {
            // A record cut short would hide all that follows it.
            let _ = self.file.set_len(self.end);
            return Err(Error::io("write", &self.path, &e));
        }
        self.end += records.len() as u64;
        Ok(())
    }
}

/// The largest time that the name of an event file in `folder` tells.
fn newest(folder: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let second = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        newest = newest.max(second);
    }
    Ok(newest)
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

/// CRC-32C (Castagnoli), RFC 3720.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| crc >> 8 ^ CRC_OF_BYTE[usize::from(crc as u8 ^ byte)])
}

const CRC_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let (mut crc, mut bit) = (i as u32, 0);
        while bit < 8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
