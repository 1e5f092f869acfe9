use super::*;
use crate::hash::sha256;
use crate::mutate;
use std::collections::BTreeSet;
use std::io::{self, Write};
use tempfile::TempDir;

const KEEP_ALL: &[u64] = &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

fn run() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Writes a checkpoint with two files that depend on the step.
fn save(run: &Path, step: u64, keep: &[u64]) -> Checkpoint {
    let weights =
        move |out: &mut dyn Write| (0..40_000u32).try_for_each(|i| out.write_all(&(i + step as u32).to_le_bytes()));
    let state = move |out: &mut dyn Write| write!(out, "{{\"step\":{step}}}");
    let files: [(&str, &FileWriter<'_>); 2] = [("weights.safetensors", &weights), ("state.json", &state)];
    let warnings = write(run, step, &files, keep).unwrap();
    assert_eq!(warnings, [""; 0]);
    at_step(run, step).unwrap()
}

fn path(run: &TempDir, step: u64, name: &str) -> PathBuf {
    run.path().join("checkpoints").join(folder_name(step)).join(name)
}

/// Every name in a folder, sorted.
fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

fn names(run: &TempDir) -> Vec<String> {
    names_in(&run.path().join("checkpoints"))
}

fn latest_step(run: &TempDir) -> Option<u64> {
    latest_valid(run.path()).unwrap().0.map(|checkpoint| checkpoint.step)
}

#[test]
fn what_is_written_is_found() {
    let run = run();
    assert_eq!(latest_step(&run), None);
    for step in [5, 10, 123_456_789] {
        let written = save(run.path(), step, KEEP_ALL);
        assert_eq!(latest_valid(run.path()).unwrap(), (Some(written), Vec::new()));
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
fn only_what_is_to_be_kept_stays_and_a_step_can_be_written_again() {
    let run = run();
    (1..=6).for_each(|step| _ = save(run.path(), step, KEEP_ALL));
    let first = save(run.path(), 7, &[3, 5, 9]);
    assert_eq!(names(&run), ["step-00000003", "step-00000005", "step-00000007"]);
    assert_eq!(save(run.path(), 7, &[]), first);
    assert_eq!(names(&run), ["step-00000007"], "the one just written always stays");
    save(run.path(), 9, KEEP_ALL);
    write(run.path(), 7, &[("state.json", &|out| out.write_all(b"other"))], KEEP_ALL).unwrap();
    assert_eq!(at_step(run.path(), 7).unwrap().files[0].sha256, sha256("other"));
    assert_eq!(names(&run), ["step-00000007"], "newer ones are of a past that was left");
}

#[test]
fn damage_is_noticed_and_the_one_before_is_used() {
    let run = run();
    [1, 2].iter().for_each(|&step| _ = save(run.path(), step, KEEP_ALL));
    let [first, second] = [1, 2].map(|step| fs::read_to_string(path(&run, step, MANIFEST)).unwrap());
    let elsewhere = second.replace("state.json", "../../x");
    for (name, content, expected) in [
        ("weights.safetensors", Some(&[0; 160_000][..]), "weights.safetensors has changed"),
        ("weights.safetensors", Some(&[0; 100]), "weights.safetensors has 100 bytes, its manifest says 160000"),
        ("state.json", None, "cannot read state.json"),
        (MANIFEST, None, "cannot read manifest.json"),
        (MANIFEST, Some(b""), "manifest.json: line 1, column 0"),
        (MANIFEST, Some(first.as_bytes()), "manifest.json: its step is 1, but its folder is for step 2"),
        (MANIFEST, Some(elsewhere.as_bytes()), "\"../../x\" cannot name a file"),
    ] {
        let path = path(&run, 2, name);
        content.map_or_else(|| fs::remove_file(&path), |content| fs::write(&path, content)).unwrap();
        let (latest, warnings) = latest_valid(run.path()).unwrap();
        assert_eq!((latest.unwrap().step, warnings.len()), (1, 1));
        assert!(warnings[0].contains("step-00000002") && warnings[0].contains(expected), "{warnings:?}: {expected}");
        // The run continues from step 1, and the damaged checkpoint is not in its way.
        save(run.path(), 2, KEEP_ALL);
        assert_eq!(latest_step(&run), Some(2));
    }
    // An unreadable checkpoint stops the run, because a continuation from step 1 would remove it.
    let newer = second.replace("\"version\": 1", "\"version\": 2");
    for (name, content, expected) in [
        (MANIFEST, &newer[..], "manifest.json: version 2, this program reads version 1"),
        ("state.json", "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    ] {
        let path = path(&run, 2, name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        let error = latest_valid(run.path()).unwrap_err().to_string();
        assert!(error.contains("step-00000002") && error.contains(expected), "{error}: {expected}");
        assert!(error.ends_with("move this checkpoint away to use the previous one"), "{error}");
        fs::write(&path, whole).unwrap();
    }
    let with_more = second.replacen('{', "{\"written_at\": 3,", 1);
    fs::write(path(&run, 2, MANIFEST), with_more).unwrap();
    assert_eq!(latest_step(&run), Some(2), "a key that is not known yet is no damage");
    save(run.path(), 9, KEEP_ALL);
    fs::remove_file(path(&run, 9, "state.json")).unwrap();
    save(run.path(), 5, &[]);
    assert_eq!(names(&run), ["step-00000005"]);
}

/// None of them is waited for as if a running session had removed it.
#[cfg(unix)]
#[test]
fn what_lies_in_the_place_of_a_checkpoint_or_of_its_file_is_damage() {
    let run = run();
    save(run.path(), 1, KEEP_ALL);
    let dangling = |at: &Path| std::os::unix::fs::symlink("nowhere", at);
    for (place, put, expected) in [
        ("", &dangling as &dyn Fn(&Path) -> io::Result<()>, "cannot read manifest.json"),
        ("", &|at| fs::write(at, ""), "cannot read manifest.json"),
        (MANIFEST, &|at| fs::create_dir(at), "cannot read manifest.json"),
        ("state.json", &|at| fs::create_dir(at), "state.json is not a regular file"),
        ("state.json", &dangling, "cannot read state.json"),
    ] {
        let folder = save(run.path(), 2, KEEP_ALL).folder;
        if place.is_empty() {
            fs::remove_dir_all(&folder).unwrap();
            put(&folder).unwrap();
        } else {
            fs::remove_file(folder.join(place)).unwrap();
            put(&folder.join(place)).unwrap();
        }
        let (latest, warnings) = latest_valid(run.path()).unwrap();
        assert_eq!(latest.unwrap().step, 1);
        assert!(warnings[0].contains("step-00000002") && warnings[0].contains(expected), "{warnings:?}: {expected}");
        // It is not in the way of the run that continues.
        save(run.path(), 2, KEEP_ALL);
        assert_eq!(latest_step(&run), Some(2));
    }
}

#[test]
fn failures_leave_nothing_half_written() {
    let run = run();
    save(run.path(), 1, &[]);
    let full = |out: &mut dyn Write| {
        out.write_all(&[0; 200_000])?;
        Err(io::Error::from(ErrorKind::StorageFull))
    };
    let error = write(run.path(), 2, &[("a", &|out| out.write_all(b"a")), ("b", &full)], &[1]).unwrap_err().to_string();
    assert!(error.contains("cannot write") && error.contains("no space left on the disk"), "{error}");
    assert!(!error.contains('\n'));
    assert_eq!(names(&run), ["step-00000001"]);
    assert_eq!(latest_step(&run), Some(1));

    let panicking = |_: &mut dyn Write| -> io::Result<()> { panic!("a bug in the caller") };
    let outcome = std::panic::catch_unwind(|| write(run.path(), 2, &[("a", &panicking)], &[1]).map(|_| ()));
    assert!(outcome.is_err());
    assert_eq!(names(&run), ["step-00000001"]);
}

/// The possible states after a kill at any moment.
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
    assert!(latest_valid(run.path()).unwrap().1.is_empty());
    save(run.path(), 2, KEEP_ALL);
    assert_eq!(names(&run), ["step-00000001", "step-00000002", "step-3"]);
}

/// A damaged manifest is refused, or has the same meaning, or names a file that is missing or has other content.
#[test]
fn damaged_manifests_never_panic() {
    let run = run();
    let good = save(run.path(), 3, &[]);
    let manifest = fs::read(path(&run, 3, MANIFEST)).unwrap();
    mutate::try_damaged(&manifest, 2_000, |case, damaged| {
        let Ok(found) = Checkpoint::from_manifest(&damaged, &good.folder, 3) else { return false };
        assert!(found.files.iter().all(|file| !file.name.contains('/')), "case {case}");
        fs::write(path(&run, 3, MANIFEST), damaged).unwrap();
        let verified = at_step(run.path(), 3);
        assert!(verified.is_err() || verified == Ok(good.clone()), "case {case}: {verified:?}");
        true
    });
}

#[test]
fn single_files_are_replaced_whole_or_not_at_all() {
    let folder = run();
    let file = folder.path().join("config.json");
    fs::write(folder.path().join(format!(".tmp-{}-config.json", std::process::id())), b"left by a kill").unwrap();
    write_atomic(&file, b"one").unwrap();
    write_atomic(&file, b"two").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"two");
    let missing = write_atomic(&folder.path().join("no/config.json"), b"x").unwrap_err().to_string();
    assert!(missing.starts_with("cannot write ") && missing.contains("no/config.json"), "{missing}");
    fs::create_dir(folder.path().join("taken")).unwrap();
    assert!(write_atomic(&folder.path().join("taken"), b"x").is_err());
    assert!(write_atomic(Path::new("/"), b"x").is_err());
    assert_eq!(names_in(folder.path()), ["config.json", "taken"]);
}
