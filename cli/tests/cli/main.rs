//! Tests the program as a user does: the real binary, real files, exit codes and output.

mod bad_input;
mod bench;
mod browser;
mod command_line;
mod crash;
mod gpu;
mod import;
mod jobs;
mod masked;
mod reasoning;
mod replay;
mod report;
mod serve;
mod suite;
mod sweep;
mod tensorboard;

use ltm::run::Line;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A model that takes a step in milliseconds.
const TINY: &[&str] = &[
    "model.layers=1",
    "model.dim=16",
    "model.heads=2",
    "model.seq=32",
    "model.window=8",
    "model.latents=2",
    "fast.steps=2",
    "train.batch=2",
    "train.steps=6",
    "train.eval_every=3",
    "train.sample_every=0",
    "train.checkpoint_every=2",
    "slow.warmup=2",
];

/// A folder for one test, and the program in it.
struct Lab(tempfile::TempDir);

impl Lab {
    /// An empty folder with `text.txt`, a few KB of text.
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        let line =
            |i: usize| format!("{i} green bottles and {} more hang on the wall, or was it {}?\n", i * 7 % 13, i % 5);
        lab.write("text.txt", (0..60).map(line).collect::<String>());
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        // The tests may run with ignored signals, e.g. under nohup; the program must not inherit this.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=HUP,INT,TERM", env!("CARGO_BIN_EXE_ltm")])
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command.env_remove("LTM_SIMD").env_remove("RAYON_NUM_THREADS");
        command
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn run(&self, args: &[&str]) -> Said {
        Said::of(self.command(args).output().unwrap(), args)
    }

    /// A command line whose words contain no spaces.
    fn ltm(&self, line: &str) -> Said {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Checks that each command line fails with `code` and an error that contains all parts between the bars.
    #[track_caller]
    fn refuses(&self, code: i32, cases: &[(&str, &str)]) {
        for (line, parts) in cases {
            self.ltm(line).fails(code, &parts.split(" | ").collect::<Vec<_>>());
        }
    }

    /// `ltm train --data text.txt --out OUT` with the tiny model and further settings.
    fn train(&self, out: &str, settings: &[&str]) -> Said {
        self.run(&train_args(out, settings))
    }

    /// The same on other data, in the folder `run`.
    fn train_on(&self, data: &str) -> Said {
        self.run(&[&["train", "--data", data, "--out", "run", "--set"], TINY].concat())
    }

    /// The files in a folder, sorted.
    fn names(&self, folder: &str) -> Vec<String> {
        let names = fs::read_dir(self.path(folder)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Changes the bytes of a file.
    fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path(name)).unwrap();
        change(&mut bytes);
        self.write(name, bytes);
    }

    /// A run of six steps in `run`, with validations after steps 3 and 6 and checkpoints of steps 2, 4 and 6.
    fn trained() -> Self {
        let lab = Self::new();
        lab.train("run", &[]).succeeds();
        lab
    }
}

fn train_args<'a>(out: &'a str, settings: &[&'a str]) -> Vec<&'a str> {
    [&["train", "--data", "text.txt", "--out", out, "--set"], TINY, settings].concat()
}

/// The output and exit code of a command.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
    command: String,
}

impl Said {
    fn of(output: Output, args: &[&str]) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr), command: args.join(" ") }
    }

    /// The standard output, which is JSON.
    fn json(&self) -> serde_json::Value {
        json(&self.out)
    }

    fn context(&self) -> String {
        format!("ltm {}\ncode {:?}\n{}{}", self.command, self.code, self.out, self.err)
    }

    #[track_caller]
    fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.context());
        self
    }

    /// Checks that the command failed with `code`, and that its error is one line with all `parts`.
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.context());
        assert!(!self.err.contains("panicked"), "{}", self.context());
        let errors: Vec<&str> = self.err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{}", self.context());
        assert_eq!(self.err.lines().last(), Some(errors[0]), "{}", self.context());
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} is not in\n{}", self.context());
        }
    }

    /// Checks that the output contains all parts between the bars.
    #[track_caller]
    fn says(&self, parts: &str) -> &Self {
        for part in parts.split(" | ") {
            assert!(self.out.contains(part) || self.err.contains(part), "{part:?} is not in\n{}", self.context());
        }
        self
    }
}

fn json(text: impl AsRef<[u8]>) -> serde_json::Value {
    serde_json::from_slice(text.as_ref()).unwrap()
}

/// All files of a run's checkpoint.
fn checkpoint_bytes(run: &Path, step: u64) -> Vec<Vec<u8>> {
    let folder = run.join(format!("checkpoints/step-{step:08}"));
    let files = ["weights.safetensors", "moments.safetensors", "state.json", "manifest.json"];
    files.map(|name| fs::read(folder.join(name)).unwrap()).into()
}

/// The lines of the metrics without times.
fn metrics(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let timeless = |line: &str| line.split(',').filter(|entry| !entry.contains("second")).collect::<Vec<_>>().join(",");
    text.lines().map(timeless).collect()
}

/// The steps in metrics, in order.
fn steps(run: &Path) -> Vec<u64> {
    let path = run.join("metrics.jsonl");
    let lines: Vec<Line> = if path.exists() { ltm::json::read_lines(&path).unwrap() } else { Vec::new() };
    lines.iter().map(Line::step).collect()
}
