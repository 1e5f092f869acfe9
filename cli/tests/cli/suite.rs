//! `ltm eval --suite` and `ltm audit` as a user meets them.

use super::*;
use serde_json::Value;
use std::io::Write;

/// A lab with texts as people have them, and a suite that reads them.
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

const SUITE: &[&str] = &["eval", "run", "--suite", "suite.toml", "--samples", "2", "--steps", "2"];

/// What is at `--results` and is something else stays as it is.
#[test]
fn results_replace_nothing_else() {
    let lab = lab();
    lab.write("notes.txt", "a line\nand another\n");
    for file in ["notes.txt", "run/config.json", "run/metrics.jsonl"] {
        let before = fs::read(lab.path(file)).unwrap();
        let place = format!("{file}: line 1");
        lab.run(&[SUITE, &["--results", file]].concat()).fails(2, &[&place, "no result of a suite", "--results"]);
        assert!(fs::read(lab.path(file)).unwrap() == before, "{file}");
    }
    lab.write("devices.toml", "[own]\npath = '/dev/zero'\nformat = 'text'\n");
    lab.run(&["eval", "run", "--suite", "devices.toml"]).fails(1, &["1 of 1 sets are missing"]);
}

#[test]
fn a_suite_is_scored_kept_and_traced() {
    let lab = lab();
    let said = lab.run(SUITE).succeeds();
    for part in [
        "PTB",
        "WikiText (first 2 documents)",
        "LAMBADA",
        "AG News",
        "not a bound",
        "S 34.71 M 32.06 L 4.43",
        "AR 110.31",
        "text by articles, detokenise wikitext, documents, the first 2 documents only: 2 documents",
        "run was trained on",
        "sha256",
        "seed 0",
    ] {
        said.says(part);
    }
    let results = fs::read_to_string(lab.path("run/suite.jsonl")).unwrap();
    let lines: Vec<Value> = results.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5 * 4);
    let of = |line: &Value, key: &str| line[key].as_f64().unwrap();
    for line in &lines {
        let rest = line.get("kl").or(line.get("rest")).unwrap();
        let parts = of(line, "nll") + rest.as_f64().unwrap();
        assert!((parts - of(line, "nats")).abs() < 1e-6 * of(line, "nats"));
        assert!(line["command"].as_str().unwrap().starts_with("ltm eval run --suite suite.toml"));
        for key in ["data_sha256", "weights_sha256"] {
            assert_eq!(line[key].as_str().unwrap().len(), 64);
        }
        assert!(of(line, "nats_per_token_error") >= 0.0 && of(line, "seed") == 0.0);
    }
    // "the bottles' wall wasn't green in 1 ?": what is scored is what the words become.
    assert_eq!(of(&lines[0], "bytes"), 12.0 * 37.0);
    assert_eq!(of(&lines[0], "tokens"), 12.0 * 38.0);

    // The same text without a suite gives the same numbers.
    let alone = lab.run(&["eval", "run", "--data", "text.txt", "--samples", "2", "--steps", "2", "--json"]).succeeds();
    let alone: Value = serde_json::from_str(&alone.out).unwrap();
    for (alone, line) in alone["results"].as_array().unwrap().iter().zip(&lines[16..]) {
        assert!((of(alone, "nats") - of(line, "nats")).abs() < 1e-9 * of(line, "nats"));
        assert_eq!(of(alone, "tokens"), of(line, "tokens"));
    }

    // Nothing is done again, not even behind a line that was not finished.
    let damaged = format!("{}\n{{\"key\": \"", results.trim_end().rsplit_once('\n').unwrap().0);
    lab.write("run/suite.jsonl", damaged);
    let again = lab.run(&[SUITE, &["--json"]].concat()).succeeds();
    assert_eq!(again.err.matches("kept from run/suite.jsonl").count(), 19, "{}", again.context());
    let value: Value = serde_json::from_str(&again.out).unwrap();
    let sets = &value["sets"];
    assert_eq!(sets.as_array().unwrap().len(), 5);
    assert_eq!(of(&sets[0]["published_perplexity"], "ar"), 258.95);
    assert_eq!(sets[0]["results"][0], lines[0]);

    // Other data, other draws and other weights are other figures.
    lab.write("ptb.txt", " the wall is green \n".repeat(12));
    let other = lab.run(SUITE).succeeds();
    assert_eq!(other.err.matches("kept from").count(), 16, "{}", other.context());
    let other = lab.run(&["eval", "run", "--suite", "suite.toml", "--samples", "3", "--protocol", "elbo"]).succeeds();
    assert!(!other.err.contains("kept from"), "{}", other.context());
    let some = lab.run(&["eval", "run", "--suite", "suite.toml", "--limit", "4", "--protocol", "elbo"]).succeeds();
    some.says("PTB (first 4 documents)")
        .says("WikiText (first 2 documents)")
        .says("the first 4 documents only: 4 documents");
}

#[test]
fn what_is_wrong_with_a_set_is_said_and_the_rest_goes_on() {
    let lab = lab();
    lab.write("bad.jsonl", "{\"text\": \"some text that is long enough for a window\"}\n{\"txet\": \"\"}\n");
    lab.write("empty.jsonl", "{\"text\": \"some text that is long enough for a window\"}\n{\"text\": \"\"}\n");
    lab.write("short.txt", "too short\n");
    lab.write("nothing.txt", "");
    let whole = fs::read(lab.path("wiki.gz")).unwrap();
    lab.write("cut.gz", &whole[..whole.len() / 2]);
    lab.write("plain.gz", "some text that is long enough for a window of tokens\n");
    lab.write("packed.txt", b"\xFD7zXZ\0 and so on");
    lab.write(
        "suite.toml",
        "[ptb]\npath = 'ptb.txt'\n[lm1b]\npath = 'none.txt'\n[lambada]\npath = 'bad.jsonl'\n[arxiv]\npath = 'empty.jsonl'\nfield = 'text'\n\
         [short]\npath = 'short.txt'\nformat = 'text'\n[nothing]\npath = 'nothing.txt'\nformat = 'text'\n[wikitext]\npath = 'cut.gz'\n\
         [agnews]\npath = 'news.csv'\ncolumn = 4\n[folder]\npath = 'run'\nformat = 'text'\n[named]\npath = 'plain.gz'\nformat = 'text'\n\
         [packed]\npath = 'packed.txt'\nformat = 'text'\n",
    );
    let said = lab.run(&[SUITE, &["--protocol", "elbo"]].concat());
    said.fails(
        1,
        &["8 of 11 sets are missing from the table: lm1b, lambada, short, nothing, wikitext, agnews, folder, packed"],
    );
    for part in [
        "LM1B: MISSING: cannot read none.txt",
        "LAMBADA: MISSING: bad.jsonl:2: no field \"text\"; there are: txet",
        "empty.jsonl:2: no text, the first of 1 records left out",
        "records without text left out: 1, the first at empty.jsonl:2",
        "short: MISSING: short.txt: its 11 tokens make no complete window of 32",
        "nothing: MISSING: nothing.txt: there is no document with text",
        "WikiText: MISSING: cannot read cut.gz",
        "AG News: MISSING: news.csv:1: there is no column 4, the record has 3",
        "folder: MISSING: run is a folder",
        "packed: MISSING: packed.txt is compressed by xz",
    ] {
        said.says(part);
    }
    assert_eq!(said.out.lines().filter(|line| line.contains("upper bound")).count(), 3, "{}", said.context());
    // A suite that cannot be is refused before anything is scored.
    lab.write("suite.toml", "[ptb]\npath = 'ptb.txt'\nchunking = 'lines'\n");
    lab.run(SUITE).fails(2, &["suite.toml:3", "choose one of windows, documents"]);
    lab.run(&["eval", "run", "--suite", "none.toml"]).fails(1, &["cannot read none.toml"]);
    lab.run(&["eval", "run", "--results", "r.jsonl"]).fails(2, &["--suite"]);
    lab.run(&["eval", "run", "--suite", "none.toml", "--gsm8k", "q.jsonl"])
        .fails(2, &["--suite", "cannot be used with"]);
    for of in [["--suite", "none.toml"], ["--data", "text.txt"], ["--protocol", "elbo"]] {
        lab.run(&[&["eval", "run", "--seed", "3"], &of[..]].concat()).fails(2, &[of[0], "cannot be used with"]);
    }
}

#[cfg(unix)]
#[test]
fn an_interrupted_suite_goes_on_where_it_was() {
    use super::crash::{interrupt, start, wait_until};
    let lab = lab();
    lab.write("long.txt", "a wall of green bottles, one of which falls\n".repeat(4000));
    lab.write("suite.toml", "[ptb]\npath = 'ptb.txt'\n[long]\npath = 'long.txt'\nformat = 'text'\n");
    let args = [SUITE, &["--protocol", "fixed,elbo,iwae"]].concat();
    let kept = || fs::read_to_string(lab.path("run/suite.jsonl")).unwrap_or_default();
    let begun = lab.path("run/suite.jsonl.begun");
    let child = start(&lab, &args);
    wait_until("the first set", || kept().lines().count() == 3);
    let key = |line: &str| serde_json::from_str::<Value>(line).unwrap()["key"].as_str().unwrap().to_string();
    let first: Vec<String> = kept().lines().map(key).collect();
    let is_second = |text: String| !first.iter().any(|key| text.contains(key));
    wait_until("the second set", || fs::read_to_string(&begun).is_ok_and(is_second));
    interrupt(&child);
    let said = Said::of(child.wait_with_output().unwrap(), &args);
    assert_eq!(said.code, Some(130), "{}", said.context());
    said.says("interrupted: results are kept in run/suite.jsonl; the same command goes on from where it is");
    assert_eq!(kept().lines().count(), 3, "the test has lost its grip");

    // Another command in between loses nothing.
    let sums = fs::read_to_string(&begun).unwrap();
    lab.run(&[&args[..], &["--results", "whole.jsonl"]].concat()).succeeds();
    lab.write("small.toml", "[own]\npath = 'ptb.txt'\nformat = 'text'\n");
    lab.run(&["eval", "run", "--suite", "small.toml", "--samples", "1"]).succeeds();
    assert_eq!(fs::read_to_string(&begun).unwrap(), sums);

    // What it goes on with is what one go gives, to the last bit; but the time it took.
    lab.run(&args).succeeds().says("PTB elbo: kept from run/suite.jsonl").says("long fixed: goes on behind");
    let figures = |text: &str| -> Vec<Value> {
        let figures = |mut line: Value| {
            for key in ["seconds", "command"] {
                line.as_object_mut().unwrap().remove(key).unwrap();
            }
            line
        };
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["set"] != "own").map(figures).collect()
    };
    assert_eq!(figures(&kept()), figures(&fs::read_to_string(lab.path("whole.jsonl")).unwrap()));
    assert!(!begun.exists() && !lab.path("whole.jsonl.begun").exists());

    // What tells of another text is not gone on with.
    lab.write("run/suite.jsonl.begun", "{\"keys\": [\"0\"], \"seconds\": 1, \"totals\": []}");
    lab.write("long.txt", "a wall of green bottles\n".repeat(40));
    let said = lab.run(&args).succeeds();
    assert!(!said.says("long fixed: ").err.contains("goes on behind"), "{}", said.context());
}

#[test]
fn a_tokenizer_that_does_not_fit_names_the_place() {
    let lab = lab();
    let args = [&["train", "--data", "text.txt", "--out", "gpt2", "--set", "data.tokenizer=gpt2"], TINY].concat();
    lab.run(&[&args[..], &["train.steps=1"]].concat()).succeeds();
    lab.write("latin.txt", b"a caf\xE9 is no UTF-8\n".repeat(20));
    lab.write(
        "suite.toml",
        "[latin]\npath = 'latin.txt'\nformat = 'text'\n[own]\npath = 'text.txt'\nformat = 'text'\n",
    );
    let args = ["eval", "gpt2", "--suite", "suite.toml", "--samples", "1", "--steps", "1", "--protocol", "elbo"];
    let said = lab.run(&args);
    said.fails(1, &["1 of 2 sets are missing from the table: latin"]);
    said.says("latin: MISSING: latin.txt:1: invalid UTF-8, and tokenizer gpt2 needs UTF-8 (bytes takes anything)");
    let cells = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let row = cells(said.out.lines().find(|line| line.starts_with("own ")).unwrap());
    // A GPT-2 model's tokens are GPT-2's.
    let ends = &row[row.len() - 3..];
    assert!(row.iter().filter(|cell| **cell == ends[0]).count() >= 2, "{}", said.context());
}

#[test]
fn audits_say_in_words_what_numbers_are() {
    let lab = Lab::new();
    let settings = ["model.seq=256", "train.steps=2", "train.eval_every=0", "train.checkpoint_every=0"];
    lab.run(&[&["train", "--out", "run", "--set"], TINY, &settings].concat()).succeeds();
    let audit = ["audit", "run", "--limit", "3", "--samples", "2", "--max-steps", "4"];
    let said = lab.run(&audit).succeeds();
    for part in [
        "3 validation stories of the embedded corpus",
        "true entropy 34.85",
        "fixed, NOT a bound",
        "valid bounds here: at no T",
        "fixed is not a bound",
        "The elbo bound is least at T =",
        "nats of KL at T = 2 go to layer 1 100 %",
    ] {
        said.says(part);
    }
    let value: Value = serde_json::from_str(&lab.run(&[&audit[..], &["--json"]].concat()).succeeds().out).unwrap();
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
        assert!((mean(row, "nll") + mean(row, "kl") - mean(row, "elbo")).abs() < 1e-6);
        assert_eq!(row["kl_by_layer_and_latent"].as_array().unwrap().len(), 1);
    }
    // What `eval` prints of the same stories.
    let eval = lab.run(&["eval", "run", "--limit", "3", "--samples", "2", "--steps", "4", "--json"]).succeeds();
    let eval: Value = serde_json::from_str(&eval.out).unwrap();
    for (result, name) in eval["results"].as_array().unwrap().iter().zip(["elbo", "iwae", "prefix", "fixed"]) {
        let expected = result["nats_per_sequence"].as_f64().unwrap();
        assert!((mean(&rows[2], name) - expected).abs() < 1e-9 * expected, "{name}");
    }

    let said = lab.run(&[&audit[..], &["--text", "text.txt"]].concat()).succeeds();
    said.says("3 sequences of text.txt (sha256 ").says("The exact cost of this text is not known");
    assert!(!said.out.contains("Less the exact cost"), "{}", said.context());
    lab.run(&[&audit[..], &["--text", "none.txt"]].concat()).fails(1, &["none.txt"]);
    lab.run(&["audit", "run", "--samples", "1"]).fails(2, &["--samples"]);
}

#[test]
fn audits_that_cannot_be() {
    let lab = Lab::trained();
    lab.run(&["audit", "run"]).fails(2, &["a sequence 32", "--text"]);
    lab.run(&["audit", "nowhere"]).fails(1, &["nowhere"]);
    lab.train("ar", &["model.kind=ar"]).succeeds();
    lab.run(&["audit", "ar", "--text", "text.txt"]).fails(2, &["no latents", "exact"]);
    let said = lab.run(&["audit", "run", "--text", "text.txt", "--limit", "1", "--samples", "2", "--max-steps", "2"]);
    said.succeeds().says("–").says("too few to tell more");
}
