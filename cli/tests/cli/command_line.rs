//! Accepted and refused command lines.

use super::*;

#[test]
fn masked_diffusion_fills_a_gap() {
    let lab = Lab::new();
    lab.train("run", &["model.kind=mdlm", "train.sample_every=6"]).succeeds().says("sample after step 6");
    lab.write("prompts.txt", "green\n");
    let args = ["generate", "run", "--prompt", "6 green", "--suffix", "- wall", "--tokens", "9", "--samples", "2"];
    let said = lab.run(&args).succeeds();
    assert_eq!(said.out, lab.run(&args).succeeds().out);
    assert_eq!(
        (said.out.matches("6 green").count(), said.out.matches("- wall\n").count()),
        (2, 2),
        "{}",
        said.context()
    );
    assert_ne!(said.out, lab.run(&[&args[..], &["--steps", "2"]].concat()).succeeds().out);
    lab.train("ar", &["model.kind=ar"]).succeeds();
    lab.ltm("quality run --judge ar --prompts prompts.txt --tokens 20").succeeds().says("generative perplexity");
    let cases = [
        (
            "generate run --prompt a --suffix b --tokens 31",
            "2 tokens and 31 more before a suffix of 1 | the model has 33",
        ),
        ("generate run --prompt a --steps 65537", "65537 steps | at most 65536"),
        ("generate run --suffix a", "--prompt | --unconditional"),
        ("quality run --prompts prompts.txt", "model.kind = mdlm fills in masks | --judge"),
    ];
    lab.refuses(2, &cases);
}

#[test]
fn score_entropy_says_what_its_scores_sum_to() {
    let lab = Lab::new();
    lab.train("run", &["model.kind=sedd"]).succeeds();
    let said = lab.ltm("eval run --draws 2").succeeds();
    said.says("bound: the mean log Z at masked tokens is | normalised");
    assert_eq!(said.out.matches("the mean log Z").count(), 1, "{}", said.context());
    assert_eq!(said.out.matches("  ≤ ").count(), 3, "{}", said.context());
}

#[test]
fn values_may_begin_with_a_dash() {
    let lab = Lab::trained();
    for (line, option) in [
        ("generate run --prompt a --top-k -1", "--top-k"),
        ("generate run --prompt a --seed -1", "--seed"),
        ("generate run --prompt a --refit -1", "--refit"),
        ("eval run --limit -1", "--limit"),
        ("eval run --steps -1", "--steps"),
        ("report run --limit -1", "--limit"),
        ("data arithmetic --out sums --seed -1", "--seed"),
        ("plan --threads -1", "--threads"),
    ] {
        lab.refuses(2, &[(line, &format!("'-1' for '{option} <")), (line, "must be a whole number")]);
    }
    lab.write("-x.txt", "");
    let cases = [
        ("generate run --prompt a --samples -1", "--samples | must be a whole number from 1 to 65535"),
        ("eval run --limit 0", "--limit | must be a whole number, 1 or more"),
        ("generate run --prompt a --temperature x", "--temperature | must be a number"),
        // The next option ends a list of values.
        ("plan --set train.steps=5 --preset nano", "unknown preset \"nano\""),
        ("train --data -x.txt", "'-x' | ./-x.txt"),
        ("train -n 3", "'-n' found; --help explains"),
        ("train --out --steps 3", "a value is required for '--out <DIR>'"),
        ("eval run --data --json", "a value is required for '--data <FILE|DIR>'"),
    ];
    lab.refuses(2, &cases);
    lab.run(&["generate", "run", "--prompt", "a", "--suffix", "- item"])
        .fails(2, &["model.kind = ltm only continues text"]);
    lab.run(&["generate", "run", "--prompt", "- item", "--tokens", "2"]).succeeds().says("- item");
}

#[test]
fn what_a_newcomer_types_leads_on() {
    let lab = Lab::new();
    let cases = [
        ("train text.txt", "'text.txt' | `ltm train --data text.txt`"),
        (
            "train --steps 3 --data text.txt --set train.batch=2 --threads 1 slow.warmup=1",
            "`--set slow.warmup=1` changes a setting",
        ),
        ("eval run text.txt", "--data names a text"),
        ("generate run --prompt It was", "--prompt takes the text, in quotes"),
        ("eval --run run", "'--run' | `ltm eval RUN`"),
        ("generate prompt", "--prompt <TEXT> | ; usage: ltm generate | <RUN>"),
    ];
    lab.refuses(2, &cases);
    lab.refuses(2, &[("trian", "'trian'; a similar subcommand exists: 'train'")]);
    let none = "other is not a run folder";
    for line in ["eval other", "audit other", "generate other --prompt a", "replay other", "train --resume other"] {
        lab.refuses(1, &[(line, none), (line, "`ltm train` makes one")]);
    }
    lab.train("runs/my run", &["train.steps=1"]).succeeds().says("`ltm eval 'runs/my run'`");
    lab.train("runs/-b", &["train.steps=1"]).succeeds();
    lab.refuses(1, &[("eval other", "other is not a run folder | there are runs/-b, 'runs/my run'")]);
}

#[test]
fn keys_that_are_none_lead_to_those_that_are_meant() {
    let lab = Lab::new();
    lab.write("preset.toml", "preset = \"tiny\"\n");
    lab.write("steps.toml", "# A comment\nsteps = 5\n");
    lab.write("rate.toml", "[fast]\nrate = 5\n");
    let cases = [
        ("plan --config preset.toml", "preset.toml:1 | unknown key \"preset\" | --preset names a preset"),
        ("plan --config steps.toml", "steps.toml:2 | \"fast.steps\" or \"train.steps\""),
        ("plan --config rate.toml", "rate.toml:2 | \"fast.rate_start\" or \"fast.rate_end\""),
        ("plan --set model.preset=tiny", "unknown key \"model.preset\" | --preset"),
        ("plan --set steps=5", "\"fast.steps\" or \"train.steps\""),
        ("plan --set train=5", "train is a section | `ltm help settings`"),
    ];
    lab.refuses(2, &cases);
    lab.ltm("plan --set data.tokenizer=\"gpt2\" model.vocab=0").succeeds().says("vocabulary 50258");
}

#[test]
fn help_says_what_acts() {
    let lab = Lab::new();
    let help = |line: &str| lab.ltm(&format!("{line} --help")).succeeds().out;
    for (line, device, threads) in [
        ("train", true, true),
        ("plan", true, false),
        ("doctor", true, false),
        ("data prepare", false, true),
        ("data arithmetic", false, false),
        ("import gpt2", false, false),
        ("cuda compile", false, true),
    ] {
        let help = help(line);
        assert_eq!((help.contains("--device"), help.contains("--threads")), (device, threads), "{line}\n{help}");
    }
    assert!(!help("train").contains("model.norm_eps"));
    assert!(lab.ltm("--version").succeeds().out.starts_with("ltm "));
    let all = lab.ltm("help settings").succeeds();
    all.says("fast.steps = 16; large: 64; large-paper: 64; tiny: 8; demo: 8")
        .says("Takes an integer, from 1 to 65535.");
    for setting in ltm::config::SETTINGS {
        assert!(all.out.contains(&format!("\n  {} = ", setting.name)), "{}", setting.name);
    }
}

#[test]
fn usual_settings_have_flags() {
    let lab = Lab::new();
    let small = "model.layers=1 model.dim=16 model.heads=2 model.seq=32 model.window=8 fast.steps=2 slow.min_rate=0";
    let line = format!("train --data text.txt --out run --steps 2 --batch 3 --lr 1e-3 --seed 7 --set {small}");
    lab.ltm(&line).succeeds().says("2 of 2 steps to go");
    let config = json(lab.read("run/config.json"));
    assert_eq!((&config["train"]["batch"], &config["train"]["seed"]), (&3.into(), &7.into()));
    assert_eq!(config["slow"]["rate"], 1e-3);
    let cases = [
        ("plan --steps 2 --set train.steps=2", "--steps and --set train.steps are the same setting"),
        ("plan --model ar --set model.kind=ltm", "--model and --set model.kind are the same setting"),
        ("train --data text.txt --set data.paths=text.txt", "--data and --set data.paths are the same setting"),
        ("plan --steps -1", "--steps: train.steps = \"-1\": expected an integer"),
        ("train --resume run --batch 5", "train.batch = 5"),
    ];
    lab.refuses(2, &cases);
}

/// Refused before anything is opened.
#[cfg(unix)]
#[test]
fn words_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let lab = Lab::trained();
    let odd = std::ffi::OsStr::from_bytes(b"w\xFF");
    fs::copy(lab.path("text.txt"), lab.0.path().join(odd)).unwrap();
    for line in ["train --out new --data", "data prepare --out new", "eval run --data", "eval", "generate run --prompt"]
    {
        let args: Vec<&str> = line.split(' ').collect();
        let said = Said::of(lab.command(&args).arg(odd).output().unwrap(), &args);
        said.fails(2, &["\"w\\xFF\" is not UTF-8: paths and texts must be"]);
    }
    assert!(!lab.path("new").exists());
}

/// A terminal would obey control characters.
#[cfg(target_os = "linux")]
#[test]
fn control_characters_are_shown_on_a_terminal() {
    let lab = Lab::trained();
    lab.write("odd.txt", "a\x1b[2Jb");
    let line = "generate run --tokens 1 --prompt-file odd.txt";
    assert!(lab.ltm(line).succeeds().out.starts_with("a\x1b[2Jb"), "elsewhere they stay as they are");
    let line = format!("{} {line}", env!("CARGO_BIN_EXE_ltm"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(lab.0.path()).stdin(Stdio::null());
    let Ok(output) = script.output() else { return eprintln!("skipped: no `script` makes a terminal here") };
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("a\\x1b[2Jb") && !out.contains("\x1b[2J"), "{out:?}");
}

/// The output to a terminal with this many columns, line by line, without cursor movements.
#[cfg(target_os = "linux")]
fn on_a_terminal(lab: &Lab, columns: usize, args: &[&str]) -> Option<Vec<String>> {
    let line = format!("stty rows 24 cols {columns}; exec {} {}", env!("CARGO_BIN_EXE_ltm"), args.join(" "));
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").current_dir(lab.0.path()).stdin(Stdio::null());
    // Without `script` there is no terminal to test with.
    let said = command.output().ok()?;
    assert!(said.status.success(), "{said:?}");
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let moves = |piece: &str| piece.find(char::is_alphabetic).map_or(String::new(), |end| piece[end + 1..].into());
    let (first, rest) = text.split_once("\u{1b}[").unwrap_or((&text, ""));
    let pieces =
        std::iter::once(first.to_string()).chain(rest.split("\u{1b}[").map(|piece| format!("\r{}", moves(piece))));
    Some(pieces.collect::<String>().split('\r').map(str::to_string).collect())
}

#[cfg(target_os = "linux")]
#[test]
fn bars_fit_their_terminal_and_leave_nothing_behind() {
    let lab = Lab::new();
    for columns in [40, 80] {
        let out = format!("run-{columns}");
        let Some(lines) = on_a_terminal(&lab, columns, &train_args(&out, &[])) else {
            return eprintln!("skipped: no `script` makes a terminal here");
        };
        let bars = lines.iter().filter(|line| line.contains("ETA ") || line.contains("%  "));
        let widest = bars.map(|line| line.trim_start_matches('\n').trim_end().chars().count()).max().unwrap();
        assert!((20..=columns).contains(&widest), "{widest} of {columns} columns: {lines:?}");
        // A line behind a bar that was left would begin with the next one.
        let left = lines.windows(2).find(|pair| pair[0].contains("/6  ETA") && pair[1].starts_with('\n'));
        assert!(left.is_none(), "{left:?}");
    }
}
