//! Bad input gives one clear line and the right exit code, and leaves nothing half-written.

use super::*;
use ltm::config::Config;

/// Without MPI, processes of a launcher would all write the same run.
#[test]
#[cfg(not(feature = "mpi"))]
fn a_program_without_mpi_does_not_train_under_a_launcher() {
    let lab = Lab::new();
    for name in ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE"] {
        let args = ["train", "--out", "run"];
        let said = Said::of(lab.command(&args).env(name, "4").output().unwrap(), &args);
        said.fails(2, &[&format!("{name} = 4, but this program works as one process"), "--features cli/mpi"]);
    }
    assert!(!lab.path("run").exists());
}

#[test]
fn usage_errors_have_code_2() {
    let lab = Lab::new();
    lab.write("lines.jsonl", "{\"text\": \"fine\"}\n");
    lab.write("key.toml", "[train]\nsteps = 3\n[fast]\nstep = 2\n");
    lab.write("syntax.toml", "[train]\nsteps = \n");
    lab.write("value.toml", "[train]\nsteps = 'x'\n");
    lab.write("nan.toml", "[slow]\nrate = nan\n");
    let cases = [
        ("frobnicate", "frobnicate"),
        ("eval", "<RUN>"),
        ("generate run", "--prompt | --unconditional"),
        ("generate run --prompt a --unconditional", "cannot be used with"),
        ("eval run --protocol perplexity", "perplexity | iwae"),
        ("plan --preset smal", "did you mean \"small\"?"),
        ("plan --set fast.steps", "KEY=VALUE"),
        ("plan --set model.dim=18 model.heads=4", "model.dim = 18 is not divisible by model.heads = 4 | 24"),
        (
            "plan --ranks 3 --set train.batch=8 train.micro=2",
            "3 processes cannot share | 4 parts of train.micro = 2: use 2",
        ),
        ("plan --ranks 2 --link 0 --speed 1", "--link | above 0"),
        ("plan --config key.toml", "key.toml:4 | fast.step | did you mean \"fast.steps\"?"),
        ("plan --config syntax.toml", "syntax.toml:2"),
        ("plan --config nan.toml", "nan.toml:2: slow.rate is null, NaN or infinite: expected a finite number"),
        ("plan --config value.toml", "value.toml:2 | train.steps | expected an integer"),
        ("train --resume run --preset tiny", "--preset"),
        ("train --set data.validation=text.txt", "data.validation | embedded corpus"),
        ("train --preset small", "embedded corpus | --preset demo"),
        ("train --data lines.jsonl", "lines.jsonl | ltm data prepare"),
        ("demo --set data.paths=text.txt", "embedded corpus"),
        ("data prepare text.txt --out tokens --tokenizer gpt3", "gpt3 | gpt2"),
        ("data prepare lines.jsonl --out tokens --format jsonl", "--field"),
        ("data prepare text.txt --out tokens --column 1", "--column | csv"),
        ("data prepare text.txt --out tokens --format csv --column 0", "columns are counted from 1"),
        ("data prepare text.txt --out tokens --validation -1", "--validation | from 0 to below 1"),
    ];
    lab.refuses(2, &cases);
    let said = Said::of(lab.command(&["plan"]).env("LTM_SIMD", "mmx").output().unwrap(), &["plan"]);
    said.fails(2, &["LTM_SIMD", "mmx", "scalar"]);
    let nothing = lab.run(&[]);
    assert_eq!(nothing.code, Some(2));
    nothing.says("Usage: ltm").says("demo");
    let commands =
        "demo train sweep replay eval audit generate quality report data import verify plan bench doctor cuda";
    commands.split(' ').for_each(|command| _ = lab.run(&[command, "--help"]).succeeds());
    assert_eq!(lab.names(".").len(), 6, "a usage error leaves nothing behind");
}

#[test]
fn files_that_cannot_be_used() {
    let lab = Lab::new();
    lab.write("empty.txt", "");
    lab.write("short.txt", "too short");
    lab.write("odd.bin", "odd");
    for (data, parts) in [
        ("none.txt", &["none.txt"][..]),
        ("empty.txt", &["empty.txt", "empty"]),
        ("short.txt", &["short.txt", "tokens are too few for a sequence of 32"]),
        ("odd.bin", &["odd.bin"]),
    ] {
        lab.train_on(data).fails(1, parts);
    }
    let cases =
        [("plan --config none.toml", "cannot read none.toml"), ("data prepare none.txt --out tokens", "none.txt")];
    lab.refuses(1, &cases);
    assert_eq!(lab.names(".").len(), 4, "bad data leave nothing behind");
}

/// For every option that names a file: a pipe without a writer, a folder, and a Git LFS pointer.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_not_waited_for() {
    let lab = Lab::trained();
    fs::create_dir(lab.path("folder")).unwrap();
    fs::create_dir(lab.path("shards")).unwrap();
    for pipe in ["pipe", "shards/train.bin"] {
        assert!(Command::new("mkfifo").arg(lab.path(pipe)).status().unwrap().success());
    }
    lab.write("sums.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"#### 2\"}\n");
    lab.write("pointer", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
    fs::copy(lab.path("pointer"), lab.path("pointer.bin")).unwrap();
    for command in [
        "train --out new --data text.txt FILE",
        "train --out new --data text.txt --set data.validation=FILE",
        "data prepare text.txt FILE --out new",
        "data prepare FILE --format jsonl --field text --out new",
        "data prepare FILE --format csv --column 1 --out new",
        "plan --config FILE",
        "sweep FILE",
        "eval run --suite FILE",
        "eval run --gsm8k FILE",
        "eval run --gsm8k sums.jsonl --shots 1 --examples FILE",
        "eval run --data FILE",
        "quality run --prompts FILE",
        "bench --compare FILE",
    ] {
        // These accept a folder of shards.
        let takes_folders = ["train", "eval run --data"].iter().any(|start| command.starts_with(start));
        let folder = if takes_folders { "holds no" } else { "folder is a folder, not a file" };
        for (file, said) in [
            ("pipe", "pipe is not a regular file: name a file"),
            ("pointer", "pointer is a Git LFS pointer, not the file itself: `git lfs pull` fetches it"),
            ("text.txt/inside", "text.txt/inside: Not a directory"),
            ("folder", folder),
        ] {
            lab.refuses(1, &[(&command.replace("FILE", file), said)]);
        }
    }
    let cases = [
        ("train --out new --data shards", "shards/train.bin is not a regular file"),
        ("train --out new --data pointer.bin", "pointer.bin is a Git LFS pointer"),
        ("eval text.txt", "text.txt is not a run folder"),
        ("import gpt2 text.txt --out new", "cannot read text.txt/ | Not a directory"),
    ];
    lab.refuses(1, &cases);
    assert!(!lab.path("new").exists());
}

/// Content of real files: damaged records, byte order marks, empty files.
#[test]
fn data_as_people_have_them() {
    let lab = Lab::new();
    lab.write(
        "bad.jsonl",
        "{\"text\": \"fine\"}\r\n{\"text\": \"\\ud800\"}\n{\"text\": 1}\n{\"text\": \"\"}\n{\"text\": \"too\"}",
    );
    lab.write("bad.csv", "text,n\nfine,1\nalone\ntoo,2\n");
    lab.write("bad.txt", b"fine\n\xFF\ntoo");
    lab.write("empty", "");
    lab.write("marked.txt", "\u{FEFF}fine\ntoo");
    lab.write("wide.txt", b"\xFF\xFEf\0i\0");
    lab.write("zip.txt", b"PK\x03\x04....");
    let left_out = "documents that cannot be read, the first at ";
    for (input, first) in [
        ("bad.jsonl --format jsonl --field text", "bad.jsonl:2: column "),
        ("bad.csv --format csv --column text", "bad.csv:3: the record has 1 fields, the first has 2"),
        ("bad.txt --split lines --tokenizer gpt2", "bad.txt:2: invalid UTF-8"),
    ] {
        let prepare = format!("data prepare empty {input} --out {}", &input[..5]);
        lab.refuses(1, &[(&prepare, &format!("{first} | ; --skip-bad skips such documents"))]);
        let said = lab.ltm(&format!("{prepare} --skip-bad")).succeeds();
        said.says(&format!(
            "train: 2 documents | for 7 bytes of text | {left_out}{first} | 1 files without a document"
        ));
    }
    let said = lab.ltm("data prepare marked.txt --split lines --out marks --skip-bad").succeeds();
    said.says("train: 2 documents | for 7 bytes of text");
    assert!(!said.err.contains("skipped"), "{}", said.context());
    let wide = "wide.txt: this is UTF-16, not UTF-8: `iconv -f UTF-16 -t UTF-8 IN > OUT` converts it";
    for (file, what) in [("wide.txt", wide), ("zip.txt", "zip.txt is a zip archive, but must be plain text")] {
        for command in ["data prepare FILE --out out --skip-bad", "train --data FILE --out out"] {
            lab.refuses(1, &[(&command.replace("FILE", file), what)]);
        }
    }
}

#[test]
fn checkpoints_that_were_damaged() {
    let lab = Lab::trained();
    let eval = || lab.ltm("eval run --protocol elbo --samples 2 --limit 2");
    eval().succeeds().says("after step 6");
    let whole = |lab: &Lab| (checkpoint_bytes(&lab.path("run"), 6), metrics(&lab.path("run")));
    let reference = whole(&lab);
    let weights = |step: u64| format!("run/checkpoints/step-{step:08}/weights.safetensors");
    lab.change(&weights(6), |bytes| bytes[2000] ^= 4);
    eval().succeeds().says("after step 4").says("warning: skipped a damaged checkpoint").says("step-00000006");
    lab.change(&weights(4), |bytes| _ = bytes.pop());
    eval().succeeds().says("after step 2");
    // Resuming from there repeats the lost steps bit for bit.
    lab.ltm("train --resume run").succeeds();
    assert!(whole(&lab) == reference);
    for step in [2, 4, 6] {
        lab.change(&weights(step), |bytes| bytes.truncate(10));
    }
    eval().fails(1, &["run has no intact checkpoint", "step-00000006"]);
    lab.refuses(1, &[("train --resume run", "run has no intact checkpoint")]);
}

#[test]
fn run_folders_that_do_not_fit() {
    let lab = Lab::trained();
    lab.train("run", &[]).fails(2, &["run already has a run", "--resume run"]);
    fs::create_dir(lab.path("other")).unwrap();
    lab.write("other/file", "something");
    lab.train("other", &[]).fails(2, &["other is not empty"]);
    lab.refuses(1, &[("eval other", "other is not a run folder"), ("eval nowhere", "nowhere")]);
    let cases = [
        ("train --resume run --set fast.steps=3", "fast.steps = 3 | fast.steps = 2 | train.threads"),
        ("train --resume run --set train.steps=5", "train.steps = 5 | already done 6"),
        // But not settings that would make it a new run.
        ("train --resume run --set model.seq=64", "model.seq = 64 cannot change a run | model.seq = 32"),
        ("train --resume run --set model.dim=17", "model.dim = 17 cannot change a run | model.dim = 16"),
    ];
    lab.refuses(2, &cases);
    // The same file with another split: validation text would become training text.
    let other_split =
        "the data have changed since run was trained on them: the files are the same | or start a new run";
    lab.refuses(1, &[("train --resume run --set data.validation=text.txt", other_split)]);
    lab.write("more.txt", "more text. ".repeat(100));
    lab.write("text.txt", "other text. ".repeat(100));
    let cases = [
        ("train --resume run", "the data have changed since run | text.txt has different content; restore"),
        ("train --resume run --data text.txt more.txt", "text.txt has different content | more.txt is new; restore"),
        ("train --resume run --data more.txt", "text.txt is missing | more.txt is new; restore"),
        ("replay run", "the data have changed since run | text.txt has different content | --data"),
        ("eval run", "the data have changed | may be training text | --data"),
    ];
    lab.refuses(1, &cases);
    let config = lab.read("run/config.json");
    assert!(config.contains("\"window\": 8"), "{config}");
    let open = config.lines().filter(|line| !line.contains("settings_sha256")).collect::<String>().replace(",}", "}");
    for (content, parts) in [
        (config.replace("\"window\": 8", "\"window\": 9").as_str(), "config.json | damaged, or changed by hand"),
        ("{\"model\": {\"layers\": ", "config.json"),
        ("{\"model\": {\"layer\": 1}}", "config.json | did you mean \"model.layers\"?"),
    ] {
        lab.write("run/config.json", content);
        lab.refuses(1, &[("eval run", parts)]);
    }
    lab.write("run/config.json", &open);
    lab.ltm("eval run --data text.txt --protocol elbo --samples 1 --limit 1").succeeds();
}

#[test]
fn evaluation_and_generation_that_cannot_be() {
    let lab = Lab::trained();
    let cases = [
        ("generate run --unconditional --samples 0", "--samples | from 1 to 65535"),
        ("generate run --prompt a --temperature -1", "temperature -1"),
        ("generate run --prompt a --top-p 0", "top-p 0"),
        ("generate run --prompt a --min-p 1.5", "min-p 1.5 must be from 0 to 1"),
        ("generate run --prompt a --repetition-penalty 0", "repetition penalty 0 must be from 0.01 to 100"),
        ("quality run --min-p -1", "min-p -1"),
        ("generate run --prompt a --prompt-file text.txt", "cannot be used with"),
        ("generate run --prompt -", "the prompt is empty"),
        ("generate run --prompt a --steps 0", "fast.steps = 0"),
        ("generate run --prompt a --refit 2 --tokens 131072", "every 2 of 131072 tokens | 65536"),
        ("eval run --samples 0", "at least one draw"),
        ("eval run --samples 4294967295", "65536"),
        ("eval run --limit 0", "--limit"),
    ];
    lab.refuses(2, &cases);
    lab.run(&["generate", "run", "--unconditional", "--stop", ""]).fails(2, &["--stop"]);
    lab.run(&["generate", "run", "--prompt", ""]).fails(2, &["--prompt"]);
    // 32 positions were trained: a new line first, then 32 bytes of prompt, of which the last is only a target.
    let (whole, longer) = ("a".repeat(32), "a".repeat(33));
    let said = lab.ltm(&format!("generate run --prompt {whole} --tokens 1 --samples 2")).succeeds();
    assert!(!said.err.contains("only the last ones are read"), "{}", said.context());
    assert_eq!(
        said.err.matches("was trained on 32 positions; longer text may get worse").count(),
        1,
        "{}",
        said.context()
    );
    lab.ltm(&format!("generate run --prompt {longer} --tokens 1")).succeeds().says("only the last ones are read");
    let said = lab.ltm("--device cpu generate run --unconditional --tokens 32").succeeds();
    assert!(!said.err.contains("note:"), "{}", said.context());
}

#[test]
fn rates_that_cannot_be_meant() {
    let lab = Lab::new();
    // From the second step on latents overflow.
    let blow_up = ["fast.posterior=adamw", "fast.rate_end=1e30", "train.checkpoint_every=1"];
    let stopped = lab.train("run", &blow_up);
    stopped.fails(1, &["the loss is not finite", "step", "sample", "train.non_finite=skip"]);
    let at = *steps(&lab.path("run")).last().unwrap();
    checkpoint_bytes(&lab.path("run"), at);
    let skipped = lab.train("skipping", &[&blow_up[..], &["train.non_finite=skip"]].concat()).succeeds();
    skipped.says("warning: step").says("the loss is not finite");
    assert_eq!(*steps(&lab.path("skipping")).last().unwrap(), 6);
    // The remedy that the message names.
    let said = lab.ltm("train --resume run --set train.non_finite=skip").succeeds();
    assert_eq!(checkpoint_bytes(&lab.path("run"), 6), checkpoint_bytes(&lab.path("skipping"), 6));
    assert!(!said.err.contains("slow.warmup"), "{}", said.context());

    // Every step fails, so single batches are not the cause.
    let wild = ["fast.posterior=adamw", "fast.rate_start=1e30", "fast.rate_end=1e30", "train.non_finite=skip"];
    let wild = |steps| [&wild[..], &[steps]].concat();
    lab.train("fast", &wild("train.steps=30"))
        .fails(1, &["step 10: ", "fast step 1", "10 steps in a row", "lower rates (slow.rate, fast.rate_"]);
    assert_eq!(steps(&lab.path("fast")).last(), Some(&10));
    lab.ltm("replay fast").succeeds().says("steps 1..10 repeated");
    // A resumed run counts on from where it was stopped.
    lab.train("halves", &wild("train.steps=5")).succeeds();
    lab.ltm("train --resume halves --set train.steps=30").fails(1, &["step 10: ", "10 steps in a row"]);

    let short = lab.train("short", &["train.steps=1", "slow.rate=0.5"]).succeeds();
    short.says("slow.warmup = 2 is not less than train.steps = 1").says("2.500e-1");
}

/// Weights spoilt by an update are reported for both ways of handling bad batches, and never saved.
#[test]
fn runs_that_diverge() {
    let lab = Lab::new();
    // Numbers that are not finite, and some that are but whose squares are not.
    let rate = ["slow.rate=1e38", "slow.min_rate=1e38", "train.eval_every=0"];
    for (i, more) in [
        // Found by the next step, or by the checkpoint after it.
        &["train.checkpoint_every=0"][..],
        &["train.checkpoint_every=0", "train.non_finite=skip"],
        &["train.checkpoint_every=1"],
        &["train.checkpoint_every=1", "train.non_finite=skip", "model.kind=ar"],
    ]
    .iter()
    .enumerate()
    {
        let run = format!("run{i}");
        let said = lab.train(&run, &[&rate[..], more].concat());
        said.fails(1, &["diverged: after step 1, ", "huge weights (above 1e19); try a new run with a lower slow.rate"]);
        assert!(!said.err.contains("train.non_finite=skip"), "{}", said.context());
        assert_eq!(ltm::checkpoint::steps(&lab.path(&run)).unwrap(), [0; 0]);
    }
    // Five steps are skipped; the update of the sixth spoils the weights.
    let late = ["fast.posterior=adamw", "fast.rate_start=1e30", "fast.rate_end=0.1", "train.non_finite=skip"];
    let after = ["diverged: after step 6, ", "the checkpoint of step 4 is older and unaffected"];
    let said = lab.train("late", &[&rate[..], &late].concat());
    said.fails(1, &after);
    said.says("step 1/6 | skipped");
    let saved = checkpoint_bytes(&lab.path("late"), 4);
    lab.run(&["train", "--resume", "late"]).fails(1, &after);
    assert_eq!(checkpoint_bytes(&lab.path("late"), 4), saved);
    assert_eq!(lab.names("late/checkpoints"), ["step-00000002", "step-00000004"]);
    lab.ltm("eval late --protocol elbo --samples 1 --limit 1").succeeds().says("after step 4");
}

/// More memory than any machine has.
#[cfg(target_os = "linux")]
#[test]
fn configurations_too_large_for_memory() {
    let lab = Lab::trained();
    let wide = ["model.dim=65536", "train.batch=65535", "model.seq=1024"];
    lab.train("wide", &wide)
        .fails(1, &["of memory are needed", "GiB", "set train.micro below 65535", "model.seq = 1024"]);
    lab.train("deep", &["model.dim=65536", "model.layers=16"]).fails(1, &["model.dim = 65536 or model.layers = 16"]);
    let mut config = Config::preset("large").unwrap();
    [("model.dim", "65536"), ("model.layers", "128")].iter().for_each(|(key, text)| config.set(key, text).unwrap());
    lab.write("run/config.json", serde_json::to_string(&config).unwrap());
    let wide = wide.join(" ");
    let cases = [
        (&*format!("demo --set {wide}"), "of memory are needed"),
        ("eval run", "of memory are needed"),
        ("generate run --unconditional", "of memory are needed"),
    ];
    lab.refuses(1, &cases);
    lab.ltm(&format!("plan --set {wide}")).succeeds().says("training would not start");
    assert_eq!(lab.names("."), ["run", "text.txt"]);
}

/// A limit on file sizes simulates a full disk: writing fails in the middle.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full() {
    let lab = Lab::trained();
    let before = checkpoint_bytes(&lab.path("run"), 6);
    let limited = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("ulimit -f 8; exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_ltm")).args(args);
        Said::of(shell.current_dir(lab.0.path()).output().unwrap(), args)
    };
    let said = limited(&["train", "--resume", "run", "--set", "train.steps=8"]);
    said.fails(1, &["cannot write", "safetensors"]);
    // Earlier files are intact, and nothing half-written remains.
    assert_eq!(checkpoint_bytes(&lab.path("run"), 6), before);
    assert_eq!(lab.names("run/checkpoints"), ["step-00000002", "step-00000004", "step-00000006"]);
    lab.ltm("train --resume run").succeeds();
    checkpoint_bytes(&lab.path("run"), 8);
}

/// A reader that goes away is not an error; a full standard output is.
#[cfg(target_os = "linux")]
#[test]
fn standard_outputs_that_end() {
    let lab = Lab::new();
    let args = ["--device", "cpu", "plan", "--ops"];
    let mut child = lab.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = lab.command(&args).stdout(full).output().unwrap();
    Said::of(output, &args).fails(1, &["cannot write to standard output"]);
}
