//! Word problems and the quality of text, from their making to the tables.

use super::*;
use serde_json::Value;

/// The lines of a file of texts: where they come from, then a text each.
fn transcript(lab: &Lab, name: &str) -> Vec<Value> {
    lab.read(name).lines().map(json).collect()
}

#[test]
fn word_problems_are_asked_and_every_text_is_kept() {
    let lab = Lab::new();
    lab.ltm("data arithmetic --out sums --problems 200 --test 6").succeeds();
    let count = |name: &str, what: &str| lab.read(name).matches(what).count();
    assert_eq!((count("sums/train.txt", "Question: "), count("sums/test.jsonl", "\n")), (200, 6));
    lab.train_on("sums/train.txt").succeeds();

    let eval = |more: &str| {
        let small = "--samples 3 --k 2 --tokens 8 --steps 1";
        lab.ltm(&format!("eval run --gsm8k sums/test.jsonl {small} {more}")).succeeds()
    };
    eval("").says("6 problems").says("pass@1").says("pass@2").says("gsm8k-0-shot.jsonl");
    let value = eval("--shots 2 --limit 3 --json").json();
    let settings = &value["settings"];
    assert_eq!((&settings["problems"], &settings["shots"]), (&3.into(), &2.into()));
    assert_eq!((&value["results"][0]["k"], &value["results"][1]["k"]), (&1.into(), &2.into()));

    let kept = transcript(&lab, "run/gsm8k-2-shot.jsonl");
    assert_eq!((kept.len(), &kept[0]), (1 + 3 * 3, settings));
    for digest in ["weights_sha256", "file_sha256"] {
        assert_eq!(settings[digest].as_str().unwrap().len(), 64);
    }
    let command = settings["command"].as_str().unwrap();
    assert!(command.starts_with("ltm eval run --gsm8k sums/test.jsonl --samples 3"), "{command}");
    for text in &kept[1..] {
        let prompt = text["prompt"].as_str().unwrap();
        assert!(prompt.starts_with("Question: ") && prompt.ends_with("\nAnswer:"));
        assert_eq!((prompt.matches("Question: ").count(), prompt.matches("#### ").count()), (3, 2));
    }
    // The same seed, the same texts, in a file of its own.
    eval("--shots 2 --limit 3").says("gsm8k-2-shot-2.jsonl");
    assert_eq!(transcript(&lab, "run/gsm8k-2-shot-2.jsonl")[1..], kept[1..]);

    // An example is not asked, whatever file it comes from.
    eval("--shots 2 --examples sums/test.jsonl").says("4 problems");
    fs::remove_file(lab.path("run/gsm8k-2-shot-3.jsonl")).unwrap();

    lab.write("bad.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n");
    let cases = [
        ("data arithmetic --out sums", "sums is not empty: name a new folder"),
        ("eval run --gsm8k sums/test.jsonl --tokens 0", "--tokens"),
        ("eval run --gsm8k sums/test.jsonl --samples 4", "pass@5 of 4 texts"),
        ("eval run --gsm8k sums/test.jsonl --samples 20000", "120000 texts are too many: must be less than 65536"),
        ("eval run --gsm8k sums/test.jsonl --shots 7", "7 examples | 6 problems"),
        ("eval run --gsm8k sums/test.jsonl --shots 6", "no problem left"),
        ("eval run --gsm8k sums/test.jsonl --data text.txt", "--data"),
        ("eval run --shots 5", "--gsm8k"),
    ];
    lab.refuses(2, &cases);
    lab.refuses(1, &[("eval run --gsm8k bad.jsonl", "bad.jsonl:1 | ####")]);
    assert_eq!(lab.names("run").len(), 4 + 3, "what fails leaves no transcript behind");
}

#[test]
fn text_is_measured_and_judged_by_any_model() {
    let lab = Lab::trained();
    lab.train("ar", &["model.kind=ar"]).succeeds();
    let quality = |more: &str| lab.ltm(&format!("quality run --tokens 20 --steps 1 {more}"));
    let said = quality("--samples 4 --judge ar").succeeds();
    said.says("4 unconditional texts of run").says("nll, exact").says("distinct-1");
    lab.write("prompts.txt", "3 green\n\nand 4 more\n");
    let value = quality("--prompts prompts.txt --json").succeeds().json();
    assert_eq!(
        (&value["texts"], &value["kind"], &value["protocol"]),
        (&2.into(), &"conditional".into(), &"elbo".into())
    );
    assert!(value["perplexity"].as_f64().unwrap() > 1.0);
    let kept = transcript(&lab, "run/quality-2.jsonl");
    let prompts: Vec<_> = kept[1..].iter().map(|text| text["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["3 green", "and 4 more"], "every prompt has its text");
    assert_eq!(kept[0], value["settings"]);
    for (digest, of) in [("weights_sha256", &kept[0]), ("prompts_sha256", &kept[0]), ("judge_weights_sha256", &value)] {
        assert_eq!(of[digest].as_str().unwrap().len(), 64, "{digest}");
    }
    assert_eq!(kept[0]["command"], "ltm quality run --tokens 20 --steps 1 --prompts prompts.txt --json");
    quality("--prompts prompts.txt --samples 2").succeeds().says("4 conditional texts");
    quality("--prompts prompts.txt --samples 40000").fails(2, &["80000 texts are too many"]);
    lab.write("blank.txt", " \n");
    quality("--prompts blank.txt").fails(1, &["blank.txt holds no prompt"]);
    lab.write("long.txt", "a prompt that is too long for what the judge reads\n");
    quality("--prompts long.txt").fails(2, &["the prompt of text 0", "the judge reads 32"]);
}
