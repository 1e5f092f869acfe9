//! Tests `ltm eval --suite` and `ltm audit`.

use super::*;
use serde_json::Value;
use std::io::Write;

/// A lab with typical texts, and a suite that reads them.
fn lab() -> Lab {
    let lab = Lab::trained();
    let sentence = " the bottles ' wall was n't green in N <unk> \n";
    lab.write("ptb.txt", sentence.repeat(12));
    let article = " \n = Bottles = \n \n The wall ( of 10 @-@ 12 bottles ) , was green . \n \n = = More = = \n some more words \n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(article.repeat(3).as_bytes()).unwrap();
    lab.write("wiki.gz", gzip.finish().unwrap());
    let record = "{\"text\": \"“ One bottle , ” he said , and then no more of them .\"}\n";
    lab.write("lambada.jsonl.zst", zstd::encode_all(record.repeat(5).as_bytes(), 1).unwrap());
    lab.write("news.csv", "\"1\",\"A title\",\"and a description, of a \"\"bottle\"\"\"\n".repeat(6));
    lab.write(
        "suite.toml",
        "[ptb]\npath = 'ptb.txt'\n[wikitext]\npath = 'wiki.gz'\nchunking = 'documents'\ndocuments = 2\n\
         [lambada]\npath = 'lambada.jsonl.zst'\n[agnews]\npath = 'news.csv'\n[own]\npath = 'text.txt'\nformat = 'text'\n",
    );
    lab
}

const SUITE: &str = "eval run --suite suite.toml --samples 2 --steps 2";

#[test]
fn a_suite_is_scored_kept_and_traced() {
    let lab = lab();
    // Another file at `--results` is not changed.
    lab.write("notes.txt", "a line\nand another\n");
    for file in ["notes.txt", "run/config.json", "run/metrics.jsonl"] {
        let before = lab.read(file);
        let place = format!("{file}: line 1");
        lab.ltm(&format!("{SUITE} --results {file}")).fails(2, &[&place, "not a suite result", "--results"]);
        assert!(lab.read(file) == before, "{file}");
    }

    let said = lab.ltm(SUITE).succeeds();
    said.says("PTB | WikiText (first 2 documents) | LAMBADA | AG News | not a bound | sha256 | seed 0")
        .says("AR 258.95, fixed S 34.71 M 32.06 L 4.43 | training text of the run, so not unseen")
        .says("text by articles, detokenise wikitext, documents, the first 2 documents only: 2 documents");
    let results = lab.read("run/suite.jsonl");
    let lines: Vec<Value> = results.lines().map(json).collect();
    assert_eq!(lines.len(), 5 * 4);
    let of = |line: &Value, key: &str| line[key].as_f64().unwrap();
    for line in &lines {
        assert!(jobs::adds_up(line), "{line}");
        assert!(line["command"].as_str().unwrap().starts_with("ltm eval run --suite suite.toml"));
        for key in ["data_sha256", "weights_sha256"] {
            assert_eq!(line[key].as_str().unwrap().len(), 64);
        }
        assert!(of(line, "nats_per_token_error") >= 0.0 && of(line, "seed") == 0.0);
    }
    // "the bottles' wall wasn't green in 1 ?": the detokenised text is scored.
    assert_eq!(of(&lines[0], "bytes"), 12.0 * 37.0);
    assert_eq!(of(&lines[0], "tokens"), 12.0 * 38.0);

    // The same text without a suite gives the same numbers.
    let alone = lab.ltm("eval run --data text.txt --samples 2 --steps 2 --json").succeeds().json();
    for (alone, line) in alone["results"].as_array().unwrap().iter().zip(&lines[16..]) {
        assert!((of(alone, "nats") - of(line, "nats")).abs() < 1e-9 * of(line, "nats"));
        assert_eq!(of(alone, "tokens"), of(line, "tokens"));
    }

    // Nothing is done again, even after a truncated line.
    let damaged = format!("{}\n{{\"key\": \"", results.trim_end().rsplit_once('\n').unwrap().0);
    lab.write("run/suite.jsonl", damaged);
    let again = lab.ltm(&format!("{SUITE} --json")).succeeds();
    assert_eq!(again.err.matches("kept from run/suite.jsonl").count(), 19, "{}", again.context());
    let sets = &again.json()["sets"];
    assert_eq!(sets.as_array().unwrap().len(), 5);
    assert_eq!(of(&sets[0]["published_perplexity"], "ar"), 258.95);
    assert_eq!(sets[0]["results"][0], lines[0]);

    // Other data and other draws give other figures.
    lab.write("ptb.txt", " the wall is green \n".repeat(12));
    let other = lab.ltm(SUITE).succeeds();
    assert_eq!(other.err.matches("kept from").count(), 16, "{}", other.context());
    let some = lab.ltm("eval run --suite suite.toml --samples 3 --limit 4 --protocol elbo").succeeds();
    assert!(!some.err.contains("kept from"), "{}", some.context());
    some.says("PTB (first 4 documents) | WikiText (first 2 documents) | the first 4 documents only: 4 documents");
    // Other models' figures for the sets that were scored.
    let mdlm = some.out.lines().find(|line| line.starts_with("MDLM") && line.contains("2406.07524")).unwrap();
    assert!(mdlm.contains("bound") && mdlm.contains("≤ 95.26") && mdlm.contains("524 B"), "{mdlm}");
}

#[test]
fn what_is_wrong_with_a_set_is_said_and_the_rest_goes_on() {
    let lab = lab();
    lab.write("bad.jsonl", "{\"text\": \"some text\"}\n{\"txet\": \"\"}\n");
    lab.write("empty.jsonl", "{\"text\": \"some text\"}\n{\"text\": \"\"}\n");
    lab.write("short.txt", "too short\n");
    lab.write("nothing.txt", "");
    lab.write("latin.txt", b"one two\nthree\nfo\xFFur\n");
    let sections = [
        "[ptb]\npath = 'ptb.txt'",
        "[lm1b]\npath = 'none.txt'",
        "[lambada]\npath = 'bad.jsonl'",
        "[arxiv]\npath = 'empty.jsonl'\nfield = 'text'",
        "[short]\npath = 'short.txt'\nformat = 'text'",
        "[nothing]\npath = 'nothing.txt'\nformat = 'text'",
        "[folder]\npath = 'run'\nformat = 'text'",
        "[latin]\npath = 'latin.txt'\nformat = 'text'\ndetokenise = 'ptb'",
        "[endless]\npath = '/dev/zero'\nformat = 'text'",
    ];
    lab.write("suite.toml", sections.join("\n"));
    let said = lab.ltm(&format!("{SUITE} --protocol elbo"));
    said.fails(1, &["6 of 9 sets are missing from the table: lm1b, lambada, nothing, folder, latin, endless"]);
    said.says(
        "LM1B: MISSING: cannot read none.txt | LAMBADA: MISSING: bad.jsonl:2: no field \"text\"; fields are: txet",
    )
    .says("empty.jsonl:2: no text, the first of 1 skipped records | skipped records without text: 1")
    .says("nothing: MISSING: its files have no document with text | folder: MISSING: run is a folder, not a file")
    .says("latin: MISSING: latin.txt:3: invalid UTF-8, and detokenise ptb needs UTF-8")
    .says("endless: MISSING: /dev/zero is not a regular file");
    assert_eq!(said.out.lines().filter(|line| line.contains("upper bound")).count(), 3, "{}", said.context());
    // An invalid suite is refused before anything is scored.
    lab.write("suite.toml", "[ptb]\npath = 'ptb.txt'\nchunking = 'lines'\n");
    lab.refuses(1, &[("eval run --suite none.toml", "cannot read none.toml")]);
    let cases = [
        (SUITE, "suite.toml:3 | expected `windows` or `documents`"),
        ("eval run --results r.jsonl", "--suite"),
        ("eval run --suite none.toml --gsm8k q.jsonl", "--suite | cannot be used with"),
        ("eval run --seed 3 --data text.txt", "--data | cannot be used with"),
        ("eval run --seed 3 --protocol elbo", "--protocol | cannot be used with"),
    ];
    lab.refuses(2, &cases);
}

#[cfg(unix)]
#[test]
fn an_interrupted_suite_goes_on_where_it_was() {
    use super::crash::{signal, start, wait_until};
    let lab = lab();
    lab.write("long.txt", "a wall of green bottles, one of which falls\n".repeat(4000));
    lab.write("suite.toml", "[ptb]\npath = 'ptb.txt'\n[long]\npath = 'long.txt'\nformat = 'text'\n");
    let suite = format!("{SUITE} --protocol fixed,elbo,iwae");
    let args: Vec<&str> = suite.split_whitespace().collect();
    let kept = || fs::read_to_string(lab.path("run/suite.jsonl")).unwrap_or_default();
    let begun = || {
        let names = lab.names("run").into_iter();
        names.filter(|name| name.ends_with(".begun")).collect::<Vec<_>>()
    };
    let child = start(&lab, &args);
    wait_until("the first set", || kept().lines().count() == 3);
    // The name contains the set, because the file of the first set may still exist.
    let is_second = |name: &String| !kept().contains(name.split('.').nth(2).unwrap());
    wait_until("the second set", || begun().iter().any(is_second));
    signal(&child, "-INT");
    let said = Said::of(child.wait_with_output().unwrap(), &args);
    assert_eq!(said.code, Some(130), "{}", said.context());
    said.says("interrupted: results are kept in run/suite.jsonl; the same command continues");
    assert_eq!(kept().lines().count(), 3, "the test has lost its grip");

    // Another command in between loses nothing.
    let file = format!("run/{}", begun()[0]);
    let sums = lab.read(&file);
    lab.ltm(&format!("{suite} --results whole.jsonl")).succeeds();
    lab.write("small.toml", "[own]\npath = 'ptb.txt'\nformat = 'text'\n");
    lab.ltm("eval run --suite small.toml --samples 1").succeeds();
    assert_eq!((begun().len(), lab.read(&file)), (1, sums));

    // The continued result equals an uninterrupted one to the last bit, except for times.
    lab.ltm(&suite).succeeds().says("PTB elbo: kept from run/suite.jsonl | long fixed: continues after");
    let figures = |file: &str| {
        let mut lines: Vec<Value> = ltm::json::read_lines(&lab.path(file)).unwrap();
        lines.retain(|line| line["set"] != "own");
        for line in &mut lines {
            line.as_object_mut().unwrap().retain(|key, _| key != "seconds" && key != "command");
        }
        lines
    };
    assert_eq!(figures("run/suite.jsonl"), figures("whole.jsonl"));
    assert!(begun().is_empty());
}

#[test]
fn a_gpt2_models_tokens_are_gpt2s() {
    let lab = Lab::new();
    lab.train("run", &["data.tokenizer=gpt2", "train.steps=1"]).succeeds();
    lab.write("latin.txt", b"a caf\xE9 is no UTF-8\n".repeat(20));
    lab.write(
        "suite.toml",
        "[latin]\npath = 'latin.txt'\nformat = 'text'\n[own]\npath = 'text.txt'\nformat = 'text'\n",
    );
    let said = lab.ltm(&format!("{SUITE} --protocol elbo --json"));
    said.fails(1, &["1 of 2 sets are missing from the table: latin"]);
    said.says("latin.txt:1: invalid UTF-8, and tokenizer gpt2 needs UTF-8 (bytes takes anything)");
    let result = &said.json()["sets"][1]["results"][0];
    assert_eq!(result["perplexity"], result["perplexity_per_gpt2_token"], "{result}");
}

#[test]
fn audits_that_cannot_be() {
    let lab = Lab::trained();
    lab.train("longer", &["model.seq=48"]).succeeds();
    lab.refuses(2, &[("audit run --against longer", "model.seq"), ("audit run --against", "--against")]);
    lab.refuses(1, &[("audit run --json text.txt", ".json"), ("audit run --json none/a.json", "none/a.json")]);
    lab.refuses(1, &[("audit nowhere", "nowhere"), ("audit run --data none.txt", "none.txt")]);
    lab.refuses(2, &[("audit run --samples 1", "--samples")]);
    let audit = |more: &str| lab.ltm(&format!("audit run --limit 1 --samples 2 --max-steps 2 {more}"));
    audit("").succeeds().says("1 sequences of the validation text of | – | too few sequences");
    audit("--data text.txt").succeeds().says("1 sequences of text.txt (sha256 ");
    lab.write("text.txt", "other text than the run was trained on\n".repeat(9));
    audit("").fails(1, &["the data have changed since run was trained", "--data names a text"]);
}
