//! What bad input gets: one clear line, the right exit code, nothing half-written.

use super::*;
use ltm::config::Config;

#[test]
fn usage_errors_have_code_2() {
    let lab = Lab::new();
    lab.run(&["frobnicate"]).fails(2, &["frobnicate"]);
    lab.run(&["eval"]).fails(2, &["<RUN>"]);
    lab.run(&["generate", "run"]).fails(2, &["--prompt", "--unconditional"]);
    lab.run(&["generate", "run", "--prompt", "a", "--unconditional"]).fails(2, &["cannot be used with"]);
    lab.run(&["eval", "run", "--protocol", "perplexity"]).fails(2, &["perplexity", "iwae"]);
    lab.run(&["plan", "--preset", "smal"]).fails(2, &["did you mean \"small\"?"]);
    lab.run(&["plan", "--set", "fast.stps=3"]).fails(2, &["unknown key \"fast.stps\", did you mean \"fast.steps\"?"]);
    lab.run(&["plan", "--set", "fast.steps"]).fails(2, &["KEY=VALUE"]);
    lab.run(&["plan", "--set", "fast.steps=many"]).fails(2, &["fast.steps", "expected an integer"]);
    lab.run(&["train", "--resume", "run", "--preset", "tiny"]).fails(2, &["--preset"]);
    lab.run(&["data", "prepare", "text.txt", "--out", "d", "--tokenizer", "gpt3"]).fails(2, &["gpt3", "gpt2"]);
    lab.run(&["demo", "--set", "data.paths=text.txt"]).fails(2, &["embedded corpus"]);
    let nothing = lab.run(&[]);
    assert_eq!(nothing.code, Some(2));
    nothing.says("Usage: ltm").says("demo");
    for command in [
        "demo", "train", "replay", "eval", "audit", "generate", "quality", "report", "data", "import", "verify",
        "plan", "doctor", "cuda",
    ] {
        lab.run(&[command, "--help"]).succeeds();
    }
    assert_eq!(fs::read_dir(lab.0.path()).unwrap().count(), 1, "a usage error leaves nothing behind");
}

#[test]
fn configurations_that_cannot_be() {
    let lab = Lab::new();
    let train = |settings: &[&str]| lab.train("run", settings);
    train(&["model.dim=18", "model.heads=4"]).fails(2, &["model.dim = 18 is not divisible by model.heads = 4", "24"]);
    train(&["model.latents=33"]).fails(2, &["model.latents = 33", "model.seq = 32"]);
    train(&["model.window=64"]).fails(2, &["model.window = 64", "model.seq = 32"]);
    lab.run(&["train", "--set", "data.validation=text.txt"]).fails(2, &["data.validation", "embedded corpus"]);
    lab.run(&["train", "--preset", "small"]).fails(2, &["embedded corpus", "--preset demo"]);

    lab.write("bad.toml", "[train]\nsteps = 3\n[fast]\nstep = 2\n");
    lab.run(&["train", "--config", "bad.toml"]).fails(2, &["bad.toml:4", "fast.step", "did you mean \"fast.steps\"?"]);
    lab.write("bad.toml", "[train]\nsteps = \n");
    lab.run(&["train", "--config", "bad.toml"]).fails(2, &["bad.toml:2"]);
    lab.write("bad.toml", "[train]\nsteps = 'x'\n");
    lab.run(&["plan", "--config", "bad.toml"]).fails(2, &["bad.toml:2", "train.steps", "expected an integer"]);
    lab.run(&["plan", "--config", "none.toml"]).fails(1, &["cannot read none.toml"]);
    assert!(!lab.path("run").exists() && !lab.path("runs").exists());
}

#[test]
fn data_that_cannot_be_used() {
    let lab = Lab::new();
    let train = |data: &str| {
        let args = [&["train", "--out", "run", "--data", data, "--set"], TINY].concat();
        lab.run(&args)
    };
    train("none.txt").fails(1, &["none.txt"]);
    lab.write("empty.txt", "");
    train("empty.txt").fails(1, &["empty.txt", "empty"]);
    lab.write("short.txt", "too short");
    train("short.txt").fails(1, &["short.txt", "fewer than one sequence of 32"]);
    fs::create_dir(lab.path("folder")).unwrap();
    train("folder").fails(1, &["folder", "ltm data prepare"]);
    lab.write("lines.jsonl", "{\"text\": \"fine\"}\n");
    train("lines.jsonl").fails(2, &["lines.jsonl", "ltm data prepare"]);

    // 300 is beyond the 258 ids of bytes: nanoGPT's format has no header to tell.
    let ids: Vec<u8> = (0..200u16).map(|i| if i == 77 { 300 } else { i }).flat_map(u16::to_le_bytes).collect();
    lab.write("ids.bin", &ids);
    train("ids.bin").fails(1, &["ids.bin", "token 77", "300"]);
    lab.write("odd.bin", &ids[..151]);
    train("odd.bin").fails(1, &["odd.bin"]);
    assert!(!lab.path("run").exists(), "bad data leave no run folder behind");
}

#[test]
fn text_that_cannot_be_prepared() {
    let lab = Lab::new();
    let prepare = |args: &[&str]| lab.run(&[&["data", "prepare", "--out", "tokens"], args].concat());
    lab.write("bad.jsonl", b"{\"text\": \"fine\"}\n{\"text\": \"\xFF\"}\n");
    prepare(&["bad.jsonl", "--format", "jsonl", "--field", "text"]).fails(1, &["bad.jsonl:2: ", "UTF-8"]);
    prepare(&["bad.jsonl", "--format", "jsonl"]).fails(2, &["--field"]);
    prepare(&["text.txt", "--column", "1"]).fails(2, &["--column", "csv"]);
    prepare(&["text.txt", "--format", "csv", "--column", "0"]).fails(2, &["columns are counted from 1"]);
    prepare(&["text.txt", "--split", "words"]).fails(2, &["--split", "blank-lines"]);
    prepare(&["text.txt", "--format", "xml"]).fails(2, &["xml", "jsonl"]);
    prepare(&["none.txt"]).fails(1, &["none.txt"]);
    prepare(&["text.txt", "--validation", "-1"]).fails(2, &["--validation", "from 0 to below 1"]);
    assert!(!lab.path("tokens").exists() && !lab.path("tokens.partial").exists());
}

#[test]
fn shards_that_were_damaged() {
    let lab = Lab::new();
    lab.run(&["data", "prepare", "text.txt", "--out", "tokens"]).succeeds();
    let shard = lab.path("tokens/train-00000.bin");
    let whole = fs::read(&shard).unwrap();
    let args = [&["train", "--out", "run", "--data", "tokens", "--set"], TINY].concat();

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle & !1] ^= 1;
    fs::write(&shard, flipped).unwrap();
    lab.run(&args).fails(1, &["train-00000.bin is damaged", "checksum"]);
    fs::write(&shard, &whole[..whole.len() - 100]).unwrap();
    lab.run(&args).fails(1, &["train-00000.bin"]);
    fs::write(&shard, &whole[..7]).unwrap();
    lab.run(&args).fails(1, &["train-00000.bin"]);
    assert!(!lab.path("run").exists());
    fs::write(&shard, whole).unwrap();
    lab.run(&args).succeeds();
}

#[test]
fn checkpoints_that_were_damaged() {
    let lab = Lab::trained();
    let eval = || lab.run(&["eval", "run", "--protocol", "elbo", "--samples", "2", "--limit", "2"]);
    eval().succeeds().says("after step 6");
    let damage = |step: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let file = lab.path(&format!("run/checkpoints/step-{step:08}/weights.safetensors"));
        let mut bytes = fs::read(&file).unwrap();
        change(&mut bytes);
        fs::write(file, bytes).unwrap();
    };
    damage(6, &|bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
    eval().succeeds().says("after step 4").says("warning: skipped a damaged checkpoint").says("step-00000006");
    damage(4, &|bytes| bytes.truncate(bytes.len() - 1));
    eval().succeeds().says("after step 2");
    // Resuming from there repeats the lost steps bit for bit.
    let reference = Lab::trained();
    lab.run(&["train", "--resume", "run"]).succeeds();
    assert_eq!(checkpoint_bytes(&lab.path("run"), 6), checkpoint_bytes(&reference.path("run"), 6));
    assert_eq!(metrics(&lab.path("run")), metrics(&reference.path("run")));
    for step in [2, 4, 6] {
        damage(step, &|bytes| bytes.truncate(10));
    }
    eval().fails(1, &["run has no checkpoint that is whole", "step-00000006"]);
    lab.run(&["train", "--resume", "run"]).fails(1, &["run has no checkpoint that is whole"]);
}

#[test]
fn run_folders_that_do_not_fit() {
    let lab = Lab::trained();
    lab.train("run", &[]).fails(2, &["run already holds a run", "--resume run"]);
    fs::create_dir(lab.path("other")).unwrap();
    lab.write("other/file", "something");
    lab.train("other", &[]).fails(2, &["other is not empty"]);
    lab.run(&["eval", "other"]).fails(1, &["other is not a run folder"]);
    lab.run(&["eval", "nowhere"]).fails(1, &["nowhere"]);
    let resume = |set: &str| lab.run(&["train", "--resume", "run", "--set", set]);
    resume("fast.steps=3").fails(2, &["fast.steps = 3", "fast.steps = 2", "train.threads"]);
    resume("train.steps=5").fails(2, &["train.steps = 5", "has done 6"]);
    // The same file with another split: what was held out would be learnt from.
    resume("data.validation=text.txt").fails(1, &["the data have changed"]);
    lab.write("text.txt", "other text. ".repeat(100));
    lab.run(&["train", "--resume", "run"]).fails(1, &["the data have changed"]);
    lab.run(&["eval", "run"]).fails(1, &["the data have changed", "may be training text", "--data"]);
    let config = fs::read_to_string(lab.path("run/config.json")).unwrap();
    assert!(config.contains("\"window\": 8"), "{config}");
    lab.write("run/config.json", config.replace("\"window\": 8", "\"window\": 9"));
    lab.run(&["eval", "run"]).fails(1, &["config.json", "damaged, or changed by hand"]);
    let open = config.lines().filter(|line| !line.contains("settings_sha256")).collect::<String>().replace(",}", "}");
    lab.write("run/config.json", &open);
    lab.run(&["eval", "run", "--data", "text.txt", "--protocol", "elbo", "--samples", "1", "--limit", "1"]).succeeds();
    lab.write("run/config.json", "{\"model\": {\"layers\": ");
    lab.run(&["eval", "run"]).fails(1, &["config.json"]);
    lab.write("run/config.json", "{\"model\": {\"layer\": 1}}");
    lab.run(&["eval", "run"]).fails(1, &["config.json", "did you mean \"model.layers\"?"]);
}

#[test]
fn generation_that_cannot_be() {
    let lab = Lab::trained();
    let generate = |args: &[&str]| lab.run(&[&["generate", "run"], args].concat());
    generate(&["--unconditional", "--samples", "0"]).fails(2, &["--samples", "1..65536"]);
    generate(&["--unconditional", "--stop", ""]).fails(2, &["--stop"]);
    generate(&["--prompt", ""]).fails(2, &["--prompt"]);
    generate(&["--prompt", "a", "--temperature", "-1"]).fails(2, &["temperature -1"]);
    generate(&["--prompt", "a", "--top-p", "0"]).fails(2, &["top-p 0"]);
    generate(&["--prompt", "a", "--steps", "0"]).fails(2, &["fast.steps = 0"]);
    generate(&["--prompt", "a", "--samples", "65536"]).fails(2, &["--samples", "1..65536"]);
    generate(&["--prompt", "a", "--refit", "2", "--tokens", "131072"]).fails(2, &["every 2 of 131072 tokens", "65536"]);
    // 32 positions were trained: a new line in front, 32 bytes of prompt, of which the last is a target only.
    let (whole, longer) = ("a".repeat(32), "a".repeat(33));
    let said = generate(&["--prompt", &whole, "--tokens", "1", "--samples", "2"]).succeeds();
    assert!(!said.err.contains("inferred from the last"), "{}", said.context());
    assert_eq!(said.err.matches("make up to 33 positions").count(), 1, "{}", said.context());
    generate(&["--prompt", &longer, "--tokens", "1"]).succeeds().says("only the last of them are read");
    let said = generate(&["--device", "cpu", "--unconditional", "--tokens", "32"]).succeeds();
    assert!(said.err.is_empty(), "{}", said.context());
    lab.run(&["eval", "run", "--samples", "0"]).fails(2, &["at least one draw"]);
    lab.run(&["eval", "run", "--samples", "4294967295"]).fails(2, &["65536"]);
    lab.write("short.txt", "four");
    for args in [["eval", "run", "--data", "short.txt"], ["audit", "run", "--text", "short.txt"]] {
        lab.run(&args).fails(2, &["short.txt: its 5 tokens make no complete window of 32"]);
    }
    lab.run(&["eval", "run", "--limit", "0"]).fails(2, &["--limit 0"]);
}

#[test]
fn a_loss_that_is_not_finite() {
    let lab = Lab::new();
    // Weights of 1e30 overflow when they meet.
    let blow_up = ["slow.rate=1e30", "slow.min_rate=1e30", "train.checkpoint_every=1"];
    let stopped = lab.train("run", &blow_up);
    stopped.fails(1, &["the loss is not finite", "step", "sample", "train.non_finite=skip"]);
    let at = *steps(&lab.path("run")).last().unwrap();
    checkpoint_bytes(&lab.path("run"), at);
    let skipped = lab.train("skipping", &[&blow_up[..], &["train.non_finite=skip"]].concat()).succeeds();
    skipped.says("warning: step").says("the loss is not finite");
    assert_eq!(*steps(&lab.path("skipping")).last().unwrap(), 6);
    // The way out that the message names.
    lab.run(&["train", "--resume", "run", "--set", "train.non_finite=skip"]).succeeds();
    assert_eq!(checkpoint_bytes(&lab.path("run"), 6), checkpoint_bytes(&lab.path("skipping"), 6));
}

/// More memory than any machine has.
#[cfg(target_os = "linux")]
#[test]
fn configurations_too_large_for_memory() {
    let lab = Lab::trained();
    let wide = ["model.dim=65536", "train.batch=65535", "model.seq=1024"];
    lab.train("wide", &wide).fails(1, &["training needs at least", "GiB", "train.batch = 65535", "model.seq = 1024"]);
    lab.run(&[&["demo", "--set"], &wide[..]].concat()).fails(1, &["training needs at least"]);
    lab.run(&[&["plan", "--set"], &wide[..]].concat()).fails(1, &["the largest single value", "train.batch = 65535"]);
    lab.train("deep", &["model.dim=65536", "model.layers=16"]).fails(1, &["model.dim = 65536 or model.layers = 16"]);
    assert!(!lab.path("wide").exists() && !lab.path("deep").exists() && !lab.path("runs").exists());
    let mut config = Config::preset("large").unwrap();
    [("model.dim", "65536"), ("model.layers", "128")].iter().for_each(|(key, text)| config.set(key, text).unwrap());
    lab.write("run/config.json", serde_json::to_string(&config).unwrap());
    lab.run(&["eval", "run"]).fails(1, &["evaluation needs at least"]);
    lab.run(&["generate", "run", "--unconditional"]).fails(1, &["generation needs at least"]);
    lab.run(&["train", "--resume", "run"]).fails(1, &["training needs at least"]);
}

#[test]
fn a_warm_up_without_end() {
    let lab = Lab::new();
    let short = lab.train("short", &["train.steps=1", "slow.rate=0.5"]).succeeds();
    short.says("slow.warmup = 2 is not less than train.steps = 1").says("2.500e-1");
    let long = lab.train("long", &["train.steps=3"]).succeeds();
    assert!(!long.err.contains("slow.warmup"), "{}", long.context());
}

#[test]
fn an_unknown_instruction_set() {
    let lab = Lab::new();
    let args = ["plan"];
    let said = Said::of(lab.command(&args).env("LTM_SIMD", "mmx").output().unwrap(), &args);
    said.fails(2, &["LTM_SIMD", "mmx", "scalar"]);
}

/// A limit on the size of files stands for the disk that is full: writing fails in the middle.
#[cfg(unix)]
#[test]
fn a_disk_that_is_full() {
    let lab = Lab::trained();
    let before = checkpoint_bytes(&lab.path("run"), 6);
    let limited = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_ltm")).args(args);
        Said::of(shell.current_dir(lab.0.path()).output().unwrap(), args)
    };
    let said = limited(&["train", "--resume", "run", "--set", "train.steps=8"]);
    said.fails(1, &["cannot write", "safetensors"]);
    // What was there is intact, and nothing half-written is left.
    assert_eq!(checkpoint_bytes(&lab.path("run"), 6), before);
    let names = fs::read_dir(lab.path("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["step-00000002", "step-00000004", "step-00000006"]);
    lab.run(&["train", "--resume", "run"]).succeeds();
    checkpoint_bytes(&lab.path("run"), 8);
    // A failure to save does not hide what the run was stopped by, and nothing is called saved.
    let blow_up = ["slow.rate=1e30", "slow.min_rate=1e30", "train.checkpoint_every=0", "train.eval_every=0"];
    let said = limited(&train_args("blown-up", &blow_up));
    said.fails(1, &["the loss is not finite", "could not be saved: cannot write", "safetensors"]);
    assert!(!said.err.contains("is saved"), "{}", said.context());
}

/// A reader that goes away is no error; a standard output that takes nothing is.
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
    Said::of(output, &args).fails(1, &["cannot write to the standard output"]);
}
