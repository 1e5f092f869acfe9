use super::*;
use crate::hash::sha256;
use crate::mutate;
use std::io::{self, Write};
use tempfile::TempDir;

const KEEP_ALL: usize = 100;

fn run() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a checkpoint with two files that depend on the step.
fn save(run: &Path, step: u64, keep: usize) -> Written {
    let weights =
        move |out: &mut dyn Write| (0..40_000u32).try_for_each(|i| out.write_all(&(i + step as u32).to_le_bytes()));
    let state = move |out: &mut dyn Write| write!(out, "{{\"step\":{step}}}");
    write(run, step, &[("weights.safetensors", &weights), ("state.json", &state)], keep).unwrap()
}

fn path(run: &TempDir, step: u64, name: &str) -> PathBuf {
    run.path().join("checkpoints").join(folder_name(step)).join(name)
}

/// Every name in the checkpoints' folder, sorted.
fn names(run: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(run.path().join("checkpoints")).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn latest_step(run: &TempDir) -> Option<u64> {
    latest_valid(run.path()).unwrap().checkpoint.map(|c| c.step)
}

#[test]
fn what_is_written_is_found() {
    let run = run();
    assert_eq!(latest_step(&run), None);
    for step in [5, 10, 123_456_789] {
        let written = save(run.path(), step, KEEP_ALL);
        assert!(written.warnings.is_empty());
        let latest = latest_valid(run.path()).unwrap();
        assert_eq!(latest.checkpoint, Some(written.checkpoint));
        assert!(latest.warnings.is_empty());
    }
    let checkpoint = at_step(run.path(), 10).unwrap();
    assert_eq!(checkpoint.files[1].sha256, sha256(b"{\"step\":10}"));
    assert_eq!(fs::read(checkpoint.file("state.json").unwrap()).unwrap(), b"{\"step\":10}");
    assert_eq!(checkpoint.files[0].bytes, 160_000);
    assert!(checkpoint.file("optimizer").is_err());
    assert!(at_step(run.path(), 11).is_err());
    assert_eq!(steps(run.path()).unwrap(), [5, 10, 123_456_789]);
}

#[test]
fn only_the_newest_are_kept() {
    let run = run();
    for step in 1..=5 {
        save(run.path(), step, 2);
    }
    assert_eq!(names(&run), ["step-00000004", "step-00000005"]);
    save(run.path(), 6, 0);
    assert_eq!(names(&run), ["step-00000006"], "the one just written always stays");
}

#[test]
fn damage_is_noticed_and_the_one_before_is_used() {
    type Damage<'a> = (&'a str, &'a dyn Fn(&TempDir));
    let damages: [Damage; 7] = [
        ("weights.safetensors is not what was written", &|run| {
            let file = path(run, 2, "weights.safetensors");
            let mut bytes = fs::read(&file).unwrap();
            bytes[77] ^= 4;
            fs::write(&file, bytes).unwrap();
        }),
        ("weights.safetensors has 100 bytes, its manifest says 160000", &|run| {
            fs::File::options().write(true).open(path(run, 2, "weights.safetensors")).unwrap().set_len(100).unwrap();
        }),
        ("cannot read state.json", &|run| fs::remove_file(path(run, 2, "state.json")).unwrap()),
        ("cannot read manifest.json", &|run| fs::remove_file(path(run, 2, MANIFEST)).unwrap()),
        ("manifest.json: line 1, column 0", &|run| fs::write(path(run, 2, MANIFEST), "").unwrap()),
        ("manifest.json: it is of step 1, its folder of step 2", &|run| {
            fs::copy(path(run, 1, MANIFEST), path(run, 2, MANIFEST)).unwrap();
        }),
        ("\"../../x\" cannot name a file", &|run| {
            let text = fs::read_to_string(path(run, 2, MANIFEST)).unwrap();
            fs::write(path(run, 2, MANIFEST), text.replace("state.json", "../../x")).unwrap();
        }),
    ];
    for (expected, damage) in damages {
        let run = run();
        save(run.path(), 1, KEEP_ALL);
        save(run.path(), 2, KEEP_ALL);
        damage(&run);
        let latest = latest_valid(run.path()).unwrap();
        assert_eq!(latest.checkpoint.unwrap().step, 1);
        let [warning] = &latest.warnings[..] else { panic!("{:?}", latest.warnings) };
        assert!(
            warning.contains(expected) && warning.contains("step-00000002"),
            "{warning:?} does not say {expected:?}"
        );
        // The run goes on from step 1, and what was damaged does not stay in its way.
        save(run.path(), 2, KEEP_ALL);
        assert_eq!(latest_step(&run), Some(2));
    }
}

#[test]
fn damaged_newer_ones_give_way_and_valid_ones_are_protected() {
    let run = run();
    save(run.path(), 10, KEEP_ALL);
    save(run.path(), 20, KEEP_ALL);
    let earlier = write(run.path(), 15, &[], 1).unwrap_err().to_string();
    assert!(earlier.contains("valid checkpoint of step 20, newer than step 15"), "{earlier}");
    assert_eq!(names(&run), ["step-00000010", "step-00000020"]);
    fs::remove_file(path(&run, 20, "state.json")).unwrap();
    save(run.path(), 15, 1);
    assert_eq!(names(&run), ["step-00000015"]);
}

#[test]
fn failures_leave_nothing_half_written() {
    let run = run();
    save(run.path(), 1, 1);
    let full = |out: &mut dyn Write| {
        out.write_all(&[0; 200_000])?;
        Err(io::Error::from(ErrorKind::StorageFull))
    };
    let error = write(run.path(), 2, &[("a", &|out| out.write_all(b"a")), ("b", &full)], 1).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("no space left on the disk"), "{error}");
    assert!(!error.contains('\n'));
    assert_eq!(names(&run), ["step-00000001"]);
    assert_eq!(latest_step(&run), Some(1));

    let panicking = |_: &mut dyn Write| -> io::Result<()> { panic!("a bug in the caller") };
    let outcome = std::panic::catch_unwind(|| write(run.path(), 2, &[("a", &panicking)], 1).map(|_| ()));
    assert!(outcome.is_err());
    assert_eq!(names(&run), ["step-00000001"]);

    for bad in ["", "a/b", "..", ".a", "manifest.json", "a\\b", "a\n"] {
        assert!(write(run.path(), 2, &[(bad, &|_| Ok(()))], 1).is_err(), "{bad:?}");
    }
    assert!(write(run.path(), 2, &[("a", &|_| Ok(())), ("a", &|_| Ok(()))], 1).is_err());
    assert_eq!(names(&run), ["step-00000001"]);
}

/// A real full device: what it refuses is reported in the same words.
#[cfg(target_os = "linux")]
#[test]
fn a_full_device_is_recognised() {
    let run = run();
    let device = |_: &mut dyn Write| fs::File::options().write(true).open("/dev/full")?.write_all(b"x");
    let error = write(run.path(), 1, &[("a", &device)], 1).unwrap_err().to_string();
    assert!(error.contains("no space left on the disk"), "{error}");
    assert!(names(&run).is_empty());
}

/// The states that a kill at any moment can leave behind.
#[test]
fn leftovers_of_a_killed_writer_are_ignored_and_cleaned() {
    let run = run();
    save(run.path(), 1, KEEP_ALL);
    let folder = run.path().join("checkpoints");
    for leftover in [".tmp-step-00000002", ".tmp-removed-step-00000000"] {
        fs::create_dir(folder.join(leftover)).unwrap();
        fs::write(folder.join(leftover).join("weights.safetensors"), b"half").unwrap();
    }
    fs::write(folder.join("step-3"), b"not a checkpoint's name").unwrap();
    fs::write(folder.join(".tmp-file"), b"").unwrap();
    assert_eq!(latest_step(&run), Some(1));
    assert!(latest_valid(run.path()).unwrap().warnings.is_empty());
    save(run.path(), 2, KEEP_ALL);
    assert_eq!(names(&run), ["step-00000001", "step-00000002", "step-3"]);
}

#[test]
fn a_step_can_be_written_again() {
    let run = run();
    let first = save(run.path(), 1, 1).checkpoint;
    let again = save(run.path(), 1, 1).checkpoint;
    assert_eq!(first, again);
    let other = write(run.path(), 1, &[("state.json", &|out| out.write_all(b"other"))], 1).unwrap().checkpoint;
    assert_ne!(other.files, first.files);
    assert_eq!(latest_valid(run.path()).unwrap().checkpoint, Some(other));
    assert_eq!(names(&run), ["step-00000001"]);
}

#[test]
fn writers_take_turns() {
    let run = run();
    std::thread::scope(|scope| {
        let slow = |out: &mut dyn Write| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            out.write_all(b"x")
        };
        let run = run.path();
        let writers: Vec<_> = (0..4).map(|_| scope.spawn(move || write(run, 7, &[("a", &slow)], 1))).collect();
        writers.into_iter().for_each(|w| drop(w.join().unwrap().unwrap()));
    });
    assert_eq!(latest_step(&run), Some(7));
}

/// A damaged manifest is refused, or means what it meant, or asks for a file that is not there or has another content.
#[test]
fn damaged_manifests_never_panic() {
    let run = run();
    let good = write(run.path(), 3, &[("a", &|out| out.write_all(b"content"))], 1).unwrap().checkpoint;
    let manifest = fs::read(path(&run, 3, MANIFEST)).unwrap();
    let mut accepted = 0;
    for case in 0..mutate::cases(20_000) {
        let damaged = mutate::damage(&manifest, case);
        let Ok(found) = Checkpoint::from_manifest(&damaged, &good.folder, 3) else { continue };
        accepted += 1;
        assert!(found.files.iter().all(|file| !file.name.contains('/')), "case {case}");
        if accepted <= 1_000 {
            fs::write(path(&run, 3, MANIFEST), damaged).unwrap();
            let verified = at_step(run.path(), 3);
            assert!(verified.is_err() || verified == Ok(good.clone()), "case {case}: {verified:?}");
        }
    }
    assert!(accepted > 100, "only {accepted} manifests got past the reader: the damage is too coarse to test it");
}

#[test]
fn single_files_are_replaced_whole_or_not_at_all() {
    let folder = run();
    let file = folder.path().join("config.json");
    fs::write(folder.path().join(format!(".tmp-{}-config.json", std::process::id())), b"left by a killed process")
        .unwrap();
    write_atomic(&file, b"one").unwrap();
    write_atomic(&file, b"two").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"two");
    let missing = write_atomic(&folder.path().join("no/config.json"), b"x").unwrap_err().to_string();
    assert!(missing.starts_with("cannot write ") && missing.contains("no/config.json"), "{missing}");
    fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(write_atomic(&folder.path().join("taken"), b"x").is_err());
    assert!(write_atomic(Path::new("/"), b"x").is_err());
    let mut left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["config.json", "taken"]);
}
