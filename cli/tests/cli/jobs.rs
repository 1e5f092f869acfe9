//! The main uses of the program, end to end, at toy size.

use super::*;
use serde_json::Value;
use std::io::Write;

/// Whether the parts of a result, if the protocol has any, add up to the whole.
pub fn adds_up(result: &Value) -> bool {
    let [nats, nll, kl] = ["nats", "nll", "kl"].map(|key| result[key].as_f64());
    let nats = nats.unwrap();
    let is_near = |sum: f64| (sum - nats).abs() < 1e-6 * nats;
    match result["protocol"].as_str().unwrap() {
        "elbo" | "fixed" => is_near(nll.unwrap() + kl.unwrap()),
        "prefix" | "nll" => is_near(nll.unwrap()) && result["kl"].is_null(),
        _ => nats > 0.0 && result["nll"].is_null() && result["kl"].is_null(),
    }
}

#[test]
fn train_evaluate_generate() {
    let lab = Lab::trained();
    // Six steps, validations after the third and the last, the newest three checkpoints.
    assert_eq!(steps(&lab.path("run")), [1, 2, 3, 3, 4, 5, 6, 6]);
    assert_eq!(json(lab.read("run/config.json"))["data"]["tokenizer"], "bytes");
    let line = json(lab.read("run/metrics.jsonl").lines().next().unwrap());
    let number = |key: &str| line[key].as_f64().unwrap();
    assert!((number("loss") - number("nll") - number("kl")).abs() < 1e-9);
    // One token per byte: bits per byte equal the loss in bits, except for the end token.
    assert!((number("bits_per_byte") - number("loss") / std::f64::consts::LN_2).abs() < 1e-9);

    lab.ltm("eval run --samples 3 --limit 2").succeeds().says("The latents cost");
    let results = lab.ltm("eval run --samples 3 --steps 3 --json").succeeds().json();
    let results = results["results"].as_array().unwrap();
    let names: Vec<&str> = results.iter().map(|result| result["protocol"].as_str().unwrap()).collect();
    assert_eq!(names, ["elbo", "iwae", "prefix", "fixed"]);
    for result in results {
        let of = |key: &str| result[key].as_f64().unwrap();
        assert!((of("perplexity") - (of("nats") / of("tokens")).exp()).abs() < 1e-9);
        assert!((of("bits_per_byte") - of("nats") / std::f64::consts::LN_2 / of("bytes")).abs() < 1e-9);
    }
    assert!(results.iter().all(adds_up));
    assert!(results[2]["tokens"].as_f64() < results[0]["tokens"].as_f64(), "a prefix is not scored");
    assert_eq!(results[3]["status"], "not a bound");

    let said = lab.ltm("eval run --data text.txt --protocol fixed,elbo --limit 3").succeeds();
    said.says("3 sequences | run was trained on text.txt | not a bound | upper bound");

    let generate = |args: &[&str]| lab.run(&[&["generate", "run", "--tokens", "20"], args].concat()).succeeds().out;
    let prompted = generate(&["--prompt", "3 green", "--seed", "1"]);
    assert!(prompted.starts_with("3 green") && prompted.len() > 10, "{prompted}");
    assert_eq!(generate(&["--prompt", "3 green", "--seed", "1"]), prompted);
    assert_ne!(generate(&["--prompt", "3 green", "--seed", "2"]), prompted);
    let free = generate(&["--unconditional", "--samples", "2", "--top-k", "5", "--top-p", "0.9", "--refit", "7"]);
    assert!(free.contains("--- 1 ---") && free.contains("--- 2 ---"), "{free}");

    // The same prompt from any source gives the same text; there is no warning by default.
    let said = |args: &[&str]| lab.run(&[&["generate", "run"], args].concat()).succeeds();
    let plain = said(&["--prompt", "3 green"]);
    assert!(!plain.says("tokens/s").err.contains("note:"), "{}", plain.context());
    lab.write("prompt.txt", "\u{FEFF}3 green\r\n");
    assert_eq!(said(&["--prompt-file", "prompt.txt"]).out, plain.out);
    let mut piped = lab.command(&["generate", "run", "--prompt", "-"]);
    let piped = piped.stdin(fs::File::open(lab.path("prompt.txt")).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), plain.out);
    // Only the most likely token, in two ways; and no repeated token among 258.
    let likeliest = ["--prompt", "3 green", "--temperature", "0"];
    assert_eq!(said(&["--prompt", "3 green", "--min-p", "1"]).out, said(&likeliest).out);
    assert_ne!(said(&[&likeliest[..], &["--repetition-penalty", "100"]].concat()).out, said(&likeliest).out);
}

/// The rate rises so high that every validation is worse than the previous one.
#[test]
fn the_checkpoint_of_the_best_validation_stays_and_can_be_chosen() {
    let lab = Lab::new();
    let high = ["slow.rate=1000", "slow.warmup=1000", "train.eval_every=2", "train.checkpoint_every=3"];
    let said = lab.train("run", &[&high[..], &["train.keep_checkpoints=1"]].concat()).succeeds();
    said.says("the best validation was after step 2 | `--checkpoint best`");
    assert_eq!(lab.names("run/checkpoints"), ["step-00000002", "step-00000006"]);
    lab.ltm("train --resume run --set train.steps=7").succeeds().says("the best validation was after step 2");
    assert_eq!(lab.names("run/checkpoints"), ["step-00000002", "step-00000007"]);

    // Validations that all get better displace no checkpoint that is due.
    let falling = ["train.eval_every=1", "train.checkpoint_every=2", "train.keep_checkpoints=3", "train.steps=7"];
    lab.train("falling", &falling).succeeds().says("7 of 7");
    assert_eq!(lab.names("falling/checkpoints"), [4, 6, 7].map(|step| format!("step-{step:08}")));

    for (choice, step) in [("", 7), ("--checkpoint latest", 7), ("--checkpoint best", 2), ("--checkpoint 2", 2)] {
        let said = lab.ltm(&format!("eval run --protocol elbo --samples 2 --limit 2 {choice}")).succeeds();
        said.says(&format!("run after step {step}, weights"));
    }
    let commands =
        ["eval run", "generate run --unconditional", "audit run --data text.txt", "quality run", "report run"];
    for command in commands {
        let none = "run has no checkpoint of step 4, but of 2, 7";
        lab.refuses(
            2,
            &[(&format!("{command} --checkpoint 4"), none), (&format!("{command} --checkpoint -1"), "a step")],
        );
    }
    fs::remove_file(lab.path("run/metrics.jsonl")).unwrap();
    lab.refuses(
        2,
        &[("eval run --checkpoint best", "run has no checkpoint with a validation; its checkpoints are of steps 2, 7")],
    );
}

/// Samples are printed and saved, equal `ltm generate` with the same weights, and do not affect training.
#[test]
fn training_shows_what_the_model_writes() {
    let lab = Lab::new();
    for kind in ["ltm", "ar", "ar-latent", "gpt2"] {
        let (run, still) = (kind, &*format!("{kind}-still"));
        let kind = format!("model.kind={kind}");
        lab.train(still, &[&kind]).succeeds();
        let every = ["train.sample_every=3", "train.checkpoint_every=3"];
        let said = lab.train(run, &[&[&*kind], &every[..]].concat()).succeeds();
        said.says("sample after step 3:\n | sample after step 6:\n  ");
        assert_eq!(steps(&lab.path(run)), [1, 2, 3, 3, 3, 4, 5, 6, 6, 6]);
        let [with, without] = [run, still].map(|run| checkpoint_bytes(&lab.path(run), 6));
        assert!(with == without);
        for line in ltm::json::read_lines::<Value>(&lab.path(run).join("metrics.jsonl")).unwrap() {
            if let Some(sample) = line["sample"].as_str() {
                let again = format!("generate {run} --unconditional --tokens 32 --checkpoint {}", line["step"]);
                assert_eq!(lab.ltm(&again).succeeds().out, format!("{sample}\n"));
            }
        }
        lab.ltm(&format!("replay {run}")).succeeds();
    }
    lab.ltm("report ltm --limit 0 --samples 0").succeeds();
    let page = lab.read("report.html");
    assert!(page.contains("samples during training") && page.contains("After step 3"));
}

/// By content, under any path; validation text is not training text.
#[test]
fn training_texts_are_known() {
    let lab = Lab::trained();
    let known = |run: &str, data: &str| {
        let said = lab.ltm(&format!("eval {run} --data {data} --protocol elbo --samples 1 --limit 1")).succeeds();
        let found = said.err.contains("was trained on");
        assert_eq!(said.out.contains("training text of the run, so not unseen"), found, "{}", said.context());
        found
    };
    fs::copy(lab.path("text.txt"), lab.path("copy.txt")).unwrap();
    lab.write("other.txt", "Seven blue bottles hang on no wall at all.\n".repeat(9));
    assert!(known("run", "copy.txt") && !known("run", "other.txt"));
    assert!(!lab.ltm("eval run --samples 1").succeeds().out.contains("training text of the run"));

    fs::remove_dir_all(lab.path("run")).unwrap();
    lab.ltm("data prepare text.txt --split lines --validation 0.2 --out shards").succeeds();
    lab.train_on("shards").succeeds();
    let shards: Vec<String> = lab.names("shards").into_iter().filter(|name| name.ends_with(".bin")).collect();
    assert_eq!(shards.len(), 2, "{shards:?}");
    for shard in &shards {
        assert_eq!(known("run", &format!("shards/{shard}")), shard.contains("train"), "{shard}");
    }
    assert!(!known("run", "shards"), "of a folder the validation shards are scored");
}

/// If a text is used for both in any way, `train` warns at once, and every number has the note.
#[test]
fn validation_text_that_is_training_text_is_told() {
    let lab = Lab::new();
    for folder in ["twins", "apart", "nested", "doubled"] {
        fs::create_dir(lab.path(folder)).unwrap();
    }
    let text = lab.read("text.txt");
    let tokens = |text: &str| text.bytes().flat_map(|byte| u16::from(byte).to_le_bytes()).collect::<Vec<_>>();
    for (name, text) in [
        ("twins/train.bin", &*text),
        ("twins/val.bin", &text),
        ("apart/train.bin", &text[400..]),
        ("apart/val.bin", &text[..400]),
        ("nested/a.bin", &text[..1600]),
        ("nested/b.bin", &text[1600..]),
        ("doubled/a.bin", &text),
        ("doubled/b.bin", &text),
    ] {
        lab.write(name, tokens(text));
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    lab.write("packed.txt.gz", gzip.finish().unwrap());
    lab.write("marked.txt", format!("\u{FEFF}{text}"));
    let cases = [
        ("twins", "", Some("twins/val.bin")),
        ("text.txt", "data.validation=text.txt", Some("text.txt")),
        ("text.txt", "data.validation=packed.txt.gz", Some("packed.txt.gz")),
        ("text.txt", "data.validation=marked.txt", Some("marked.txt")),
        // The split of the folder does not apply to its first shard alone.
        ("nested nested/b.bin", "data.validation_fraction=0.6", Some("b.bin")),
        ("text.txt", "", None),
        ("text.txt text.txt", "", None),
        ("apart", "", None),
        ("doubled", "", Some("doubled/b.bin")),
    ];
    let evaluate = |run: &str| lab.ltm(&format!("eval {run} --protocol elbo --samples 1 --limit 1")).succeeds();
    for (i, (data, set, seen)) in cases.into_iter().enumerate() {
        let tiny = TINY.join(" ");
        let said = lab.ltm(&format!("train --data {data} --out run{i} --set {tiny} {set}")).succeeds();
        let warning = said.err.lines().find(|line| line.starts_with("warning: validation text of "));
        assert_eq!(warning.is_some(), seen.is_some(), "{}", said.context());
        assert!(warning.unwrap_or_default().contains(seen.unwrap_or_default()), "{}", said.context());
        let repeats = said.err.contains(" have the same text, so the model trains on it twice as often");
        assert_eq!(repeats, ["text.txt text.txt", "doubled"].contains(&data), "{}", said.context());
        let said = evaluate(&format!("run{i}"));
        assert_eq!(said.out.contains("training text of the run, so not unseen"), seen.is_some(), "{}", said.context());
    }
    lab.ltm("report run0 --out page.html --limit 2 --samples 0").succeeds();
    assert!(lab.read("page.html").contains("training text of the run, so not unseen"));
    // A compressed copy of training text is recognised by its tokens.
    let said = lab.ltm("eval run5 --data packed.txt.gz --protocol elbo --samples 1 --limit 1").succeeds();
    said.says("run5 was trained on packed.txt.gz | training text of the run, so not unseen");
    // An audit tells it of every run that it compares. The end of text.txt is held out from run5.
    for (audit, is_noted) in [("run7", false), ("run5", false), ("run7 --data text.txt", true)] {
        let said = lab.ltm(&format!("audit {audit} --against run5 --max-steps 1 --samples 2 --limit 1")).succeeds();
        assert_eq!(said.err.contains("note: run5 was trained on text.txt"), is_noted, "{}", said.context());
    }
}

/// For a very short text, unknown numbers are a dash or `null`.
#[test]
fn the_shortest_texts_are_judged() {
    let lab = Lab::trained();
    lab.train("ar", &["model.kind=ar"]).succeeds();
    for text in ["a", "ab", "a text of one window and a bit more"] {
        lab.write("short.txt", text);
        for command in ["eval run --data", "eval ar --data", "audit run --max-steps 2 --data"] {
            for draws in [2, 1 + usize::from(command.starts_with("audit"))] {
                let line = format!("{command} short.txt --samples {draws}");
                let said = lab.ltm(&line).succeeds();
                let is_number = |word: &str| !["NaN", "inf", "-inf"].contains(&word);
                assert!(said.out.split_whitespace().all(is_number), "{}", said.context());
                let json = if command.starts_with("audit") { "--json -" } else { "--json" };
                lab.ltm(&format!("{line} {json}")).succeeds().json();
            }
        }
    }
    lab.write("short.txt", "");
    lab.refuses(1, &[("eval run --data short.txt", "short.txt has no text")]);
}

#[test]
fn the_embedded_corpus_and_its_entropy() {
    let lab = Lab::new();
    let settings = ["model.seq=256", "train.steps=2", "train.eval_every=0", "train.checkpoint_every=0"];
    let settings = [TINY, &settings].concat().join(" ");
    lab.ltm(&format!("train --out run --set {settings}")).succeeds().says("the source's exact cost is");
    let said = lab.ltm("eval run --samples 2 --limit 5").succeeds();
    let prefix = said.out.lines().find(|line| line.starts_with("prefix")).unwrap();
    let cells: Vec<&str> = prefix.split_whitespace().collect();
    assert!(cells.ends_with(&["–", "(half", "a", "story)"]), "{prefix}");
    said.says("5 stories of the embedded corpus | exact mean -log p | the bound holds | not a bound");
    let json = lab.ltm("eval run --samples 2 --limit 5 --protocol elbo --json").succeeds().json();
    assert_eq!(json["results"][0]["bound_holds"], true);
    // After two steps a byte still costs about ln 258.
    assert!(json["results"][0]["above_truth"].as_f64().unwrap() > 500.0);

    // The audit describes the numbers in words.
    let audit = "audit run --limit 3 --samples 2 --max-steps 4 --stories 2 --probe 4";
    let said = lab.ltm(audit).succeeds();
    said.says("3 stories of the embedded corpus | the exact cost of these stories is | fixed, NOT a bound")
        .says("valid bounds here: neither is below | fixed is not a bound | The elbo bound is least at T =")
        .says("nats: 100 % in layer 1; | minus run's way | the reference's way costs | for all 32 numbers");
    let value = lab.ltm(&format!("{audit} --json -")).succeeds().json();
    let rows = value["rows"].as_array().unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row["fast_steps"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 4]);
    let mean = |row: &Value, key: &str| row[key]["mean"].as_f64().unwrap();
    for row in rows {
        let above = &row["above_truth"];
        assert_eq!(above["elbo"]["holds"], true);
        assert!(mean(above, "elbo") > 500.0, "two steps teach little");
        let gap = mean(row, "fixed_at_fresh_noise") - mean(row, "fixed");
        assert!((gap - mean(row, "gap")).abs() < 1e-6);
        let more = mean(row, "reference_nll") + mean(row, "reference_kl") - mean(row, "elbo");
        assert!((more - mean(row, "reference_minus_own")).abs() < 1e-6);
        assert!((mean(row, "nll") + mean(row, "kl") - mean(row, "elbo")).abs() < 1e-6);
        assert_eq!(row["kl_by_layer_and_latent"].as_array().unwrap().len(), 1);
    }
    // The ledger stands beside that of a baseline, and alone for a run without latents.
    lab.ltm(&format!("train --model ar --out ar --set {settings}")).succeeds();
    let said = lab.ltm(&format!("{audit} --against ar --json ledger.json")).succeeds();
    said.says("repeated fact, first letter | no memory | bits read in run | by chance | names, second | minus ar");
    let whole: Value = serde_json::from_str(&lab.read("ledger.json")).unwrap();
    let ledger = &whole["ledger"];
    for key in ["repeat_nats", "first_nats", "truth_repeat_nats", "floor_repeat_nats"] {
        for part in ["value", "error"] {
            assert!(ledger[key][part].as_f64().is_some_and(f64::is_finite), "{key}: {ledger}");
        }
    }
    for key in ["kept_unconditional", "kept_prompted"] {
        assert!(ledger[key]["of"].as_f64().is_some() && ledger["against"][0][key]["kept"].as_f64().is_some());
    }
    assert_eq!(ledger["against"][0]["run"], "ar");
    lab.ltm("audit ar --limit 2 --stories 0").succeeds().says("infers no latents | repeated fact, first letter");
    let said = lab.ltm(&format!("{audit} --data text.txt --against ar")).succeeds();
    said.says("3 sequences of text.txt (sha256  | The exact cost of this text is not known | other words, later")
        .says("latents: their KL | sum | minus ar | latents inferred from the first half: a cost without KL");
    assert!(!said.out.contains("minus the exact cost"), "{}", said.context());
}

/// The demo has all its parts also where nothing is learned, and fits a screen.
#[test]
fn the_demo_shows_what_is_remembered() {
    let lab = Lab::new();
    let settings = ["model.seq=256", "train.steps=2", "train.eval_every=0", "train.checkpoint_every=0"];
    let demo = lab.ltm(&format!("demo --set {}", [TINY, &settings].concat().join(" "))).succeeds();
    demo.says("the source itself, exactly | reader without memory | ar-latent, exactly | ar, exactly | elbo | not a bound")
        .says("With latents drawn | first half | repeated fact, first letter | by chance | kept | facts | the better baseline");
    for run in ["runs/demo", "runs/demo/ar-latent", "runs/demo/ar"] {
        assert!(lab.path(run).join("config.json").exists(), "{run}");
    }
    let widest = demo.out.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(widest <= 110 && demo.out.lines().count() < 100, "{}", demo.out);
}

/// The oracle is told the facts of the embedded corpus's stories, and of a prompt.
#[test]
fn the_oracle_needs_stories() {
    let lab = Lab::new();
    let settings = ["model.seq=256", "train.steps=2", "train.checkpoint_every=1", "train.sample_every=2"];
    let settings = [TINY, &settings].concat().join(" ");
    let said = lab.ltm(&format!("train --model oracle --out run --set {settings}")).succeeds();
    said.says("NLL given the facts | the source's exact cost is | sample after step 2");
    lab.ltm("replay run").succeeds();
    lab.ltm("plan --model oracle").succeeds().says("latents of known facts");
    let said = lab.ltm("eval run --limit 5").succeeds();
    said.says("exact, given the facts | both are given the facts | nll: exact, ");
    let json = lab.ltm("eval run --limit 5 --json").succeeds().json();
    let of = |key: &str| json["results"][0][key].as_f64().unwrap();
    // Every mentioned fact has one of 16 values.
    let mentioned = of("facts_nats_per_sequence") * 5.0 / 16f64.ln();
    assert!((mentioned - mentioned.round()).abs() < 1e-6, "{mentioned}");
    let above = of("nats_per_sequence") - of("exact_nats_per_sequence");
    assert!((above - of("above_truth")).abs() < 1e-6 * above && above > 500.0);
    let write = |more: &str| lab.ltm(&format!("generate run --tokens 20 {more}")).succeeds().out;
    assert_eq!(write("--unconditional"), write("--unconditional"));
    assert!(write("--prompt Rosa").starts_with("Rosa"));
    lab.ltm("report run --limit 2 --samples 1").succeeds();
    lab.ltm("audit run --limit 2 --samples 2 --stories 1").succeeds().says("latents | in stories of its own");
    let refused = [
        ("train --model oracle --data text.txt", "model.kind = oracle"),
        ("eval run --data text.txt", "model.kind = oracle"),
        ("eval run --protocol elbo", "choose one of nll"),
        ("audit run --data text.txt", "model.kind = oracle"),
    ];
    lab.refuses(2, &refused);
}

#[test]
fn prepared_data_bring_their_tokenizer_and_their_validation() {
    let lab = Lab::new();
    let prepare = "data prepare text.txt --out tokens --split lines --validation 0.2 --tokenizer gpt2";
    lab.ltm(prepare).succeeds().says("validation:");
    lab.write("run.toml", "[train]\nsteps = 2\n[model]\nseq = 64 # overridden below\n");
    let set = TINY.join(" ").replace("train.steps=6", "");
    lab.ltm(&format!("train --data tokens --config run.toml --out run --set {set}")).succeeds();
    assert_eq!(*steps(&lab.path("run")).last().unwrap(), 2);
    let config = lab.read("run/config.json");
    for part in ["\"tokenizer\": \"gpt2\"", "\"vocab\": 50258", "\"seq\": 32", "\"steps\": 2"] {
        assert!(config.contains(part), "{part} is not in {config}");
    }
    lab.ltm("eval run --protocol prefix --limit 2 --samples 2").succeeds();
    lab.run(&["generate", "run", "--prompt", "green é", "--tokens", "5"]).succeeds().says("green é");
    // Data may move, but must not change.
    fs::rename(lab.path("tokens"), lab.path("moved")).unwrap();
    lab.refuses(1, &[("train --resume run", "tokens")]);
    lab.ltm("train --resume run --data moved --set train.steps=3").succeeds();

    // Several files are one corpus.
    lab.write("more.txt", "and another text, which is long enough to be two sequences. ".repeat(3));
    lab.ltm(&format!("train --data text.txt more.txt --out both --set {}", TINY.join(" "))).succeeds();
    lab.ltm("eval both --protocol elbo --samples 2").succeeds().says("sequences");
}

#[test]
fn plans_and_verification() {
    let lab = Lab::new();
    let said = lab.ltm("plan --preset tiny").succeeds();
    said.says("parameters: 566400 | (T+1)(6P + 6·L·d·N) | at every fast step | memory");
    let ops = lab.ltm("plan --preset tiny --ops").succeeds();
    assert!(ops.out.len() > said.out.len());
    ops.says("layers.1 cross_attention");

    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/golden_tiny.safetensors");
    fs::copy(golden, lab.path("golden.safetensors")).unwrap();
    let verify = || lab.ltm("verify --golden golden.safetensors");
    verify().succeeds().says("grad.mu | everything is within its tolerance");
    lab.change("golden.safetensors", |bytes| *bytes.iter_mut().nth_back(2).unwrap() ^= 0x20);
    verify().fails(1, &["beyond", "tolerance"]);
    fs::remove_file(lab.path("golden.safetensors")).unwrap();
    verify().fails(1, &["golden.safetensors"]);
}
