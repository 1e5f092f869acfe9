use super::*;
use crate::json;
use crate::run::Metrics;

/// A field of a message: its number with the bytes of its value.
type Field = (u64, Vec<u8>);

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

/// The fields of a message, integers as eight bytes.
fn fields(mut bytes: &[u8]) -> Vec<Field> {
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

/// CRC-32C bit by bit, apart from the table.
fn crc_by_bits(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        (0..8).for_each(|_| crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 });
    }
    !crc
}

/// The data of all records in a file, which has to be whole.
fn records(path: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(path).unwrap();
    let mut rest = &bytes[..];
    let checked = |data: &[u8], sum: &[u8]| {
        let stored = u32::from_le_bytes(sum.try_into().unwrap()).wrapping_sub(0xA282_EAD8);
        assert_eq!(stored.rotate_left(15), crc_by_bits(data));
        data.to_vec()
    };
    let mut records = Vec::new();
    while !rest.is_empty() {
        let length = checked(take(&mut rest, 8), take(&mut rest, 4));
        let length = u64::from_le_bytes(length.try_into().unwrap());
        records.push(checked(take(&mut rest, length as usize), take(&mut rest, 4)));
    }
    records
}

/// What a reader gets to know from the files of a folder, in order: `(step, tag, value)`, texts as their length.
fn told(folder: &Path) -> Vec<(u64, String, f32)> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut told = Vec::new();
    for file in files {
        let records = records(&file);
        assert_eq!(field(&records[0], 3).as_deref(), Some(&b"brain.Event:2"[..]));
        for record in records {
            let number = |bytes: Vec<u8>| u64::from_le_bytes(bytes.try_into().unwrap());
            let step = number(field(&record, 2).unwrap());
            let time = f64::from_le_bytes(field(&record, 1).unwrap().try_into().unwrap());
            assert!((now() - time).abs() < 60.0, "{time}");
            if let Some(session) = field(&record, 7) {
                assert_eq!(number(field(&session, 1).unwrap()), 1);
                told.retain(|&(at, _, _)| at < step);
            }
            for (_, value) in field(&record, 5).iter().flat_map(|summary| fields(summary)) {
                let tag = String::from_utf8(field(&value, 1).unwrap()).unwrap();
                let scalar = field(&value, 2).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
                let text = || field(&field(&value, 8).unwrap(), 8).unwrap().len() as f32;
                told.push((step, tag, scalar.unwrap_or_else(text)));
            }
        }
    }
    told
}

fn losses(folder: &Path) -> Vec<(u64, f32)> {
    told(folder).into_iter().filter(|(_, tag, _)| tag == "train/loss").map(|(step, _, x)| (step, x)).collect()
}

fn step(step: u64, loss: f64) -> Value {
    Value::object([("step", step.into()), ("loss", loss.into()), ("tokens", 9u64.into()), ("state", "0f".into())])
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
    let folder = tempfile::tempdir().unwrap();
    let mut events = Events::create(folder.path(), 0).unwrap();
    for line in [
        r#"{"step":300,"loss":1.5,"rate":1e-3,"tokens":70000,"state":"00ff","skipped":"dull"}"#,
        r#"{"step":300,"protocol":"elbo","loss":2.5,"kl":null}"#,
        r#"{"step":300,"trouble":"latents_ignored","message":"so it is"}"#,
    ] {
        events.write(&json::parse(line.as_bytes()).unwrap()).unwrap();
    }
    let told = told(folder.path());
    let expected = [
        ("train/loss", 1.5),
        ("train/rate", 1e-3),
        ("train/tokens", 70000.0),
        ("train/skipped", 4.0),
        ("validation/loss", 2.5),
        ("validation/kl", f32::NAN),
        ("trouble/message", 8.0),
    ];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, (tag, x)) in told.iter().zip(expected) {
        assert!(told.0 == 300 && told.1 == tag && told.2.to_bits() == x.to_bits(), "{told:?}");
    }
}

#[test]
fn a_run_that_goes_on_repeats_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (path, events) = (folder.path().join("metrics.jsonl"), folder.path().join("tensorboard"));
    // At first nobody asked for events.
    let mut metrics = Metrics::open(&path, 0).unwrap();
    (1..=3).for_each(|i| metrics.write(&step(i, i as f64)).unwrap());
    drop(metrics);
    let mut metrics = Metrics::open(&path, 2).unwrap();
    metrics.mirror(&events, 2).unwrap();
    (3..=6).for_each(|i| metrics.write(&step(i, i as f64)).unwrap());
    drop(metrics);
    assert_eq!(losses(&events), [1, 2, 3, 4, 5, 6].map(|i| (i, i as f32)));
    // Back to a checkpoint, more than once within a second.
    for last in [7, 8] {
        let mut metrics = Metrics::open(&path, 4).unwrap();
        metrics.mirror(&events, 4).unwrap();
        (5..=last).for_each(|i| metrics.write(&step(i, 10.0 * i as f64)).unwrap());
    }
    let expected = [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 50.0), (6, 60.0), (7, 70.0), (8, 80.0)];
    assert_eq!(losses(&events), expected);
}

#[test]
fn what_cannot_be_written_leaves_whole_records() {
    let folder = tempfile::tempdir().unwrap();
    let mut events = Events::create(folder.path(), 0).unwrap();
    events.write(&step(1, 1.0)).unwrap();
    // As after a write that broke off: half a record, and then a file that takes no more.
    let torn = record(&[7; 50]);
    OpenOptions::new().append(true).open(&events.path).unwrap().write_all(&torn[..30]).unwrap();
    let writable = events.file;
    assert_eq!(fs::metadata(&events.path).unwrap().len(), events.end + 30);
    events.file = writable;
    events.file.set_len(events.end).unwrap();
    events.write(&step(2, 2.0)).unwrap();
    assert_eq!(losses(folder.path()), [(1, 1.0), (2, 2.0)]);

    let blocked = folder.path().join("file");
    fs::write(&blocked, "in the way").unwrap();
    let error = Events::create(&blocked, 0).unwrap_err().to_string();
    assert!(error.contains("file") && !error.contains('\n'), "{error}");
}
