//! Word problems and the quality of text, from their making to the tables.

use super::*;
use ltm::json::{self, Value};

fn parsed(line: &str) -> Value {
    json::parse(line.as_bytes()).unwrap()
}

#[test]
fn word_problems_are_asked_and_every_text_is_kept() {
    let lab = Lab::new();
    lab.run(&["data", "arithmetic", "--out", "sums", "--problems", "200", "--held-out", "6"]).succeeds();
    lab.run(&["data", "arithmetic", "--out", "sums"]).fails(2, &["sums is not empty: name a new folder"]);
    let (learn, asked) = (lab.path("sums/train.txt"), lab.path("sums/test.jsonl"));
    let learn = fs::read_to_string(learn).unwrap();
    assert_eq!(learn.matches("Question: ").count(), 200);
    assert_eq!(fs::read_to_string(asked).unwrap().lines().count(), 6);
    lab.run(&[&["train", "--data", "sums/train.txt", "--out", "run", "--set"], TINY].concat()).succeeds();

    let eval = |more: &[&str]| lab.run(&[&["eval", "run", "--gsm8k", "sums/test.jsonl"], more].concat());
    let small = ["--samples", "3", "--k", "2", "--tokens", "8", "--steps", "1"];
    eval(&small).succeeds().says("6 problems").says("pass@1").says("pass@2").says("gsm8k-0-shot.jsonl");
    let said = eval(&[&small[..], &["--shots", "2", "--limit", "3", "--json"]].concat()).succeeds();
    let value = parsed(&said.out);
    let settings = value.field("settings").unwrap();
    assert_eq!(settings.read("problems", Value::as_usize), Ok(3));
    assert_eq!(settings.read("shots", Value::as_usize), Ok(2));
    let results = value.read("results", Value::as_array).unwrap();
    assert_eq!(results.iter().map(|r| r.read("k", Value::as_usize).unwrap()).collect::<Vec<_>>(), [1, 2]);

    let kept = fs::read_to_string(lab.path("run/gsm8k-2-shot.jsonl")).unwrap();
    let kept: Vec<Value> = kept.lines().map(parsed).collect();
    assert_eq!(kept.len(), 1 + 3 * 3);
    assert_eq!(&kept[0], settings);
    for digest in ["weights_sha256", "file_sha256"] {
        assert_eq!(settings.read(digest, Value::as_str).unwrap().len(), 64);
    }
    let command = settings.read("command", Value::as_str).unwrap();
    assert!(command.starts_with("ltm eval run --gsm8k sums/test.jsonl --samples 3"), "{command}");
    for text in &kept[1..] {
        let prompt = text.read("prompt", Value::as_str).unwrap();
        assert!(prompt.starts_with("Question: ") && prompt.ends_with("\nAnswer:"));
        assert_eq!((prompt.matches("Question: ").count(), prompt.matches("#### ").count()), (3, 2));
    }
    // The same seed, the same texts, in a file of its own.
    eval(&[&small[..], &["--shots", "2", "--limit", "3"]].concat()).succeeds().says("gsm8k-2-shot-2.jsonl");
    let again = fs::read_to_string(lab.path("run/gsm8k-2-shot-2.jsonl")).unwrap();
    assert_eq!(again.lines().skip(1).map(parsed).collect::<Vec<_>>(), kept[1..]);

    // An example is not asked, whatever file it comes from.
    eval(&[&small[..], &["--shots", "2", "--examples", "sums/test.jsonl"]].concat()).succeeds().says("4 problems");
    fs::remove_file(lab.path("run/gsm8k-2-shot-3.jsonl")).unwrap();

    eval(&["--tokens", "0"]).fails(2, &["--tokens 0"]);
    eval(&["--samples", "4"]).fails(2, &["--k 5", "--samples 4"]);
    eval(&["--samples", "20000"]).fails(2, &["--samples 20000 of 6 problems are 120000 texts", "--limit"]);
    eval(&["--shots", "7"]).fails(2, &["--shots 7", "6 problems"]);
    eval(&["--shots", "6"]).fails(2, &["no problem left"]);
    eval(&["--data", "text.txt"]).fails(2, &["--data"]);
    lab.run(&["eval", "run", "--shots", "5"]).fails(2, &["--gsm8k"]);
    lab.write("bad.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n");
    lab.run(&["eval", "run", "--gsm8k", "bad.jsonl"]).fails(1, &["bad.jsonl:1", "####"]);
    let files = fs::read_dir(lab.path("run")).unwrap().count();
    assert_eq!(files, 4 + 3, "what fails leaves no transcript behind");
}

#[test]
fn text_is_measured_and_judged_by_any_model() {
    let lab = Lab::trained();
    let baseline = [&["train", "--data", "text.txt", "--out", "ar", "--model", "ar", "--set"], TINY].concat();
    lab.run(&baseline).succeeds();
    let quality = |more: &[&str]| lab.run(&[&["quality", "run", "--tokens", "20", "--steps", "1"], more].concat());
    quality(&["--samples", "4", "--judge", "ar"])
        .succeeds()
        .says("4 unconditional texts of run")
        .says("nll, exact")
        .says("distinct-1");
    lab.write("prompts.txt", "3 green\n\nand 4 more\n");
    let said = quality(&["--prompts", "prompts.txt", "--json"]).succeeds();
    let value = parsed(&said.out);
    assert_eq!(value.read("texts", Value::as_usize), Ok(2));
    assert_eq!(value.read("kind", Value::as_str), Ok("conditional"));
    assert_eq!(value.read("protocol", Value::as_str), Ok("elbo"));
    assert!(value.read("perplexity", Value::as_f64).unwrap() > 1.0);
    let kept = fs::read_to_string(lab.path("run/quality-2.jsonl")).unwrap();
    let kept: Vec<Value> = kept.lines().map(parsed).collect();
    let prompts: Vec<_> = kept[1..].iter().map(|text| text.read("prompt", Value::as_str).unwrap()).collect();
    assert_eq!(prompts, ["3 green", "and 4 more"], "every prompt has its text");
    assert_eq!(&kept[0], value.field("settings").unwrap());
    for (digest, of) in [("weights_sha256", &kept[0]), ("prompts_sha256", &kept[0]), ("judge_weights_sha256", &value)] {
        assert_eq!(of.read(digest, Value::as_str).unwrap().len(), 64, "{digest}");
    }
    assert_eq!(
        kept[0].read("command", Value::as_str),
        Ok("ltm quality run --tokens 20 --steps 1 --prompts prompts.txt --json")
    );
    quality(&["--prompts", "prompts.txt", "--samples", "2"]).succeeds().says("4 conditional texts");
    quality(&["--prompts", "prompts.txt", "--samples", "40000"])
        .fails(2, &["--samples 40000 of 2 prompts are 80000 texts"]);
    lab.write("blank.txt", " \n");
    quality(&["--prompts", "blank.txt"]).fails(1, &["blank.txt holds no prompt"]);
    lab.write("long.txt", "a prompt that is too long for what the judge reads\n");
    quality(&["--prompts", "long.txt"]).fails(2, &["the prompt of text 0", "the judge reads 32"]);
}
