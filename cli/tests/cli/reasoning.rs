//! Word problems and the quality of text, from generation to the tables.

use super::*;
use serde_json::Value;

/// The lines of a file of texts: first their origin, then one text per line.
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
    let said = eval("");
    said.says("6 problems | pass@1 | pass@2 | gsm8k-0-shot.jsonl | 0 of 6: at most 39.3 % (95 % confidence)");
    let cut = "6 of 6 prompts are longer than the 32 tokens the model reads; their beginning is not read";
    assert_eq!((said.out.matches(cut).count(), said.err.matches(cut).count()), (1, 0), "{}", said.context());
    let value = eval("--shots 2 --limit 3 --json").json();
    let settings = &value["settings"];
    assert_eq!((&settings["problems"], &settings["shots"]), (&3.into(), &2.into()));
    assert_eq!((&settings["prompts_cut"], &settings["prompt_tokens_read"]), (&3.into(), &32.into()));
    let [first, second] = [&value["results"][0], &value["results"][1]];
    assert!(first["bound_95_percent"]["at_most"].is_f64(), "{value}");
    assert_eq!((&first["k"], &second["k"], &first["standard_error"]), (&1.into(), &2.into(), &Value::Null));

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
    // Existing texts are reused; texts lost in a kill are generated again with the same bits.
    let whole = lab.read("run/gsm8k-2-shot.jsonl");
    eval("--shots 2 --limit 3").says("gsm8k-2-shot.jsonl; 9 of them were there already");
    lab.write("run/gsm8k-2-shot.jsonl", &whole[..whole.len() - 300]);
    let other_k = "--samples 3 --k 3 --tokens 8 --steps 1 --shots 2 --limit 3";
    let said = lab.ltm(&format!("eval run --gsm8k sums/test.jsonl {other_k}")).succeeds();
    said.says("8 of them were there already | pass@3");
    assert_eq!(lab.read("run/gsm8k-2-shot.jsonl"), whole);
    // Other options are another evaluation with its own file. An example is never asked, even from another file.
    eval("--shots 2 --examples sums/test.jsonl").says("4 problems | gsm8k-2-shot-2.jsonl");
    fs::remove_file(lab.path("run/gsm8k-2-shot-2.jsonl")).unwrap();
    let one = "--samples 1 --tokens 8 --transcripts one.jsonl";
    lab.ltm(&format!("eval run --gsm8k sums/test.jsonl {one}")).succeeds().says("pass@1 | all texts are in one.jsonl");

    lab.write("bad.jsonl", "{\"question\": \"1 + 1?\", \"answer\": \"2\"}\n");
    let cases = [
        ("data arithmetic --out sums", "sums is not empty: name a new folder"),
        ("eval run --gsm8k sums/test.jsonl --tokens 0", "--tokens"),
        ("eval run --gsm8k sums/test.jsonl --samples 4 --k 5", "pass@5 of 4 texts"),
        (
            "eval run --gsm8k sums/test.jsonl --transcripts one.jsonl",
            "one.jsonl has no texts of these weights, options",
        ),
        (
            "eval run --gsm8k sums/test.jsonl --transcripts sums/test.jsonl",
            "sums/test.jsonl has no texts of these weights",
        ),
        ("eval run --gsm8k sums/test.jsonl --samples 20000", "120000 texts are too many: must be less than 65536"),
        ("eval run --gsm8k sums/test.jsonl --shots 7", "7 examples | 6 problems"),
        ("eval run --gsm8k sums/test.jsonl --shots 6", "no problem left"),
        ("eval run --gsm8k sums/test.jsonl --data text.txt", "--data"),
        ("eval run --shots 5", "--gsm8k"),
    ];
    let sums = lab.read("sums/test.jsonl");
    lab.refuses(2, &cases);
    assert_eq!(lab.read("sums/test.jsonl"), sums, "a file that is not a transcript is not changed");
    let mut swapped: Vec<String> = lab.read("one.jsonl").lines().map(|line| format!("{line}\n")).collect();
    swapped.swap(1, 2);
    lab.write("swapped.jsonl", swapped.concat());
    let continued = format!("eval run --gsm8k sums/test.jsonl {}", one.replace("one.jsonl", "swapped.jsonl"));
    let cases = [
        ("eval run --gsm8k bad.jsonl", "bad.jsonl:1 | ####"),
        ("eval run --gsm8k sums/test.jsonl --transcripts run", "run is a folder, not a file"),
        (&*continued, "swapped.jsonl: its texts are not numbered as this evaluation numbers them"),
    ];
    lab.refuses(1, &cases);
    assert_eq!(lab.names("run").len(), 4 + 2, "a failed evaluation leaves no transcript");
    // Texts of other settings are not mixed in.
    let config = lab.read("run/config.json");
    let open = config.lines().filter(|line| !line.contains("settings_sha256")).collect::<String>().replace(",}", "}");
    assert!(open.contains("\"init_logvar_std\": 0.1"), "{open}");
    lab.write("run/config.json", open.replace("\"init_logvar_std\": 0.1", "\"init_logvar_std\": 0.2"));
    let again = format!("eval run --gsm8k sums/test.jsonl {one}");
    lab.refuses(2, &[(&again, "one.jsonl has no texts of these weights, options")]);
}

#[cfg(unix)]
#[test]
fn interrupted_word_problems_go_on_where_they_were() {
    use super::crash::{signal, start, wait_until};
    let lab = Lab::trained();
    lab.ltm("data arithmetic --out sums --problems 8 --test 6").succeeds();
    let eval = "eval run --gsm8k sums/test.jsonl --samples 100 --tokens 20 --steps 1 --transcripts";
    let line = format!("{eval} begun.jsonl");
    let args: Vec<&str> = line.split_whitespace().collect();
    let child = start(&lab, &args);
    wait_until("some texts", || lab.path("begun.jsonl").exists() && lab.read("begun.jsonl").lines().count() > 3);
    signal(&child, "-INT");
    let said = Said::of(child.wait_with_output().unwrap(), &args);
    assert_eq!(said.code, Some(130), "the test has lost its grip: {}", said.context());
    said.says("interrupted: the texts so far are in begun.jsonl; the same command continues");
    let going_on = lab.ltm(&line).succeeds();
    going_on.says("of them were there already");
    let whole = lab.ltm(&format!("{eval} whole.jsonl")).succeeds();
    assert_eq!(transcript(&lab, "begun.jsonl")[1..], transcript(&lab, "whole.jsonl")[1..]);
    assert_eq!(going_on.out, whole.out);
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
    quality("--prompts blank.txt").fails(1, &["blank.txt has no prompt"]);
    lab.write("long.txt", "a prompt that is too long for what the judge reads\n");
    quality("--prompts long.txt").fails(2, &["the prompt of text 0", "the judge reads only 32"]);
}
