//! `ltm report`: one self-contained page, for any names and texts.

use super::*;

/// Options that take little time.
const SMALL: &str = "--limit 2 --samples 1 --tokens 20";

/// Checks that a page contains all `parts`, separated by bars.
#[track_caller]
fn has(page: &str, parts: &str) {
    parts.split(" | ").for_each(|part| assert!(page.contains(part), "{part:?} is not in the page"));
}

/// Runs of each kind, one with markup in its name, on a text full of markup.
#[test]
fn what_comes_from_outside_is_text_and_the_same_page_comes_again() {
    let lab = Lab::new();
    let line =
        |i: usize| format!("<script>alert({i})</script> &amp; <img src=http://x.org/{i} onerror=f()> é→\0\u{202E}\n");
    lab.write("text.txt", (0..60).map(line).collect::<String>());
    let odd = "<b onclick=f()>&\"odd\"";
    for (name, kind, steps) in
        [(odd, "ltm", "fast.steps=2"), ("ar", "ar", "fast.steps=3"), ("gpt2", "gpt2", "fast.steps=2")]
    {
        let args = [&["train", "--data", "text.txt", "--out", name, "--model", kind, "--set"], TINY, &[steps]].concat();
        lab.run(&args).succeeds();
    }
    let prompt = "</p><script>alert(1)</script>";
    // The learned positions of gpt2 hold the prompt and little more.
    let args = ["report", odd, "ar", "gpt2", "--limit", "2", "--samples", "1", "--tokens", "2", "--prompt", prompt];
    lab.run(&[&args[..], &["--out", "page.html"]].concat()).succeeds().says("page.html");
    let page = lab.read("page.html");
    let ours = "DOCTYPE a article body caption circle code details div figcaption figure g h1 h2 h3 h4 head header html li \
                line link main meta nav ol p path polyline rect section span style summary svg table tbody td text th thead \
                title tr ul";
    let ours: Vec<&str> = ours.split(' ').collect();
    let names = page.split('<').skip(1).map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap());
    let foreign: Vec<&str> = names.filter(|name| !name.is_empty() && !ours.contains(name)).collect();
    assert!(foreign.is_empty(), "elements that are not the page's own: {foreign:?}");
    assert!(page.contains("&lt;b onclick=f()&gt;&amp;&quot;odd&quot;"), "the name is shown as it is");
    assert!(page.contains("<span class=\"prompt\">&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;</span>"));
    assert!(!page.contains('\0') && !page.contains('\u{202E}'));

    // The page loads nothing: it refers only to its own anchors and an empty icon.
    let values = |name: &str| {
        let after = format!(" {name}=\"");
        page.split(&after).skip(1).map(|rest| rest.split('"').next().unwrap().to_string()).collect::<Vec<_>>()
    };
    assert!(values("href").iter().all(|href| href.starts_with('#') || href == "data:,"), "{:?}", values("href"));
    assert!(values("src").is_empty() && !page.contains("url(") && !page.contains("@import"));
    assert!(page.contains("default-src &#39;none&#39;") || page.contains("default-src 'none'"));
    assert!(values("id").iter().all(|id| page.contains(&format!("href=\"#{id}\""))) && values("id").len() == 7);

    let report = |out: &str, threads: &str| {
        let args = ["report", odd, "ar", "gpt2", "--out", out, "--threads", threads];
        lab.run(&[&args[..], &SMALL.split(' ').collect::<Vec<_>>()].concat()).succeeds();
    };
    report("report.html", "2");
    let first = lab.read("report.html");
    assert!((20_000..5_000_000).contains(&first.len()), "{} bytes", first.len());
    report("again.html", "1");
    assert!(first == lab.read("again.html"), "the same runs give the same page, on any number of threads");
    has(
        &first,
        "Loss against steps | Loss against tokens | NLL against steps | KL against steps | not a bound | \
         upper bound | exact | class=\"n s9\" | there is nothing to audit | Sample 1 \
         | Text 2 | KL by layer and latent | other words, second | model.kind",
    );
    assert!(!first.contains("NaN") && !first.contains(">inf"));
    // A model that infers no latents takes no fast steps, so it does not differ in their number; nor is there a suite to show.
    let differing = first.split("Settings that differ").nth(2).unwrap().split("</table>").next().unwrap();
    assert!(differing.contains("model.kind") && !differing.contains("fast.steps"), "{differing}");
    assert!(!first.contains("Suite"));
    // The page has the same numbers as `ltm eval`.
    let eval = lab.ltm("eval ar --limit 2 --protocol nll").succeeds();
    let nll = eval.out.lines().find_map(|line| line.strip_prefix("nll")?.split_whitespace().nth(1)).unwrap();
    assert!(first.contains(&format!(">{nll} ± ")), "{nll}");
}

#[test]
fn what_is_missing_is_said() {
    let lab = Lab::trained();
    fs::create_dir(lab.path("empty")).unwrap();
    fs::create_dir(lab.path("early")).unwrap();
    lab.write("early/config.json", lab.read("run/config.json"));
    let missing = [
        ("report run nowhere", "nowhere"),
        ("report run empty", "empty is not a run folder: it has no config.json"),
        ("report run --data none.txt", "none.txt"),
        ("report run --out none/report.html", "cannot write none/report.html: name a file in a folder that exists"),
        ("report run --out run/config.json", "cannot write run/config.json: it exists and does not end in .html"),
        ("report run --out text.txt", "cannot write text.txt: it exists and does not end in .html"),
        ("report run --out empty", "cannot write empty: name a file"),
        ("report run --out /proc/report.html", "cannot write /proc/report.html: "),
    ];
    lab.refuses(1, &missing);
    lab.refuses(2, &[("report", "<RUN>")]);
    lab.run(&["report", "run", "--prompt", ""]).fails(2, &["--prompt"]);
    assert_eq!(lab.names("."), ["early", "empty", "run", "text.txt"]);

    // A run without a checkpoint appears beside the others with the available data.
    lab.write("early/metrics.jsonl", lab.read("run/metrics.jsonl"));
    let no_checkpoint = "early: no results, audit, texts or samples: early has no checkpoint";
    lab.ltm(&format!("report early run run {SMALL}")).succeeds().says(no_checkpoint);
    let page = lab.read("report.html");
    has(
        &page,
        &format!("{no_checkpoint} | Loss against time | Learning rate against steps | Gradient norm against steps"),
    );
    // Sentences that audits share are printed once.
    assert_eq!(page.matches("elbo and iwae are upper bounds").count(), 1);
    fs::remove_file(lab.path("early/metrics.jsonl")).unwrap();

    // Without an evaluation no weights are needed, and the page names missing optional parts.
    lab.ltm("report early --limit 0 --samples 0").succeeds().says("early: no metrics, so no curves");
    let early = lab.read("report.html");
    has(&early, "early: no metrics, so no curves | There was no evaluation | No texts were generated");

    // The page names an unreadable file, and only its part is missing. The name of a set is markup.
    lab.write("suite.toml", "['<ptb>']\npath = 'text.txt'\nformat = 'text'\nsplit = 'lines'\ndocuments = 1\n");
    lab.ltm("eval run --suite suite.toml --protocol elbo --samples 1").succeeds();
    let metrics = lab.read("run/metrics.jsonl");
    lab.write("run/metrics.jsonl", metrics.replacen("{\"step\":2", "{\"step\"<2", 1));
    fs::rename(lab.path("text.txt"), lab.path("moved.txt")).unwrap();
    let report = || lab.ltm(&format!("report run {SMALL}")).succeeds();
    report().says("run/metrics.jsonl: line 2, column");
    let damaged = lab.read("report.html");
    has(
        &damaged,
        "run/metrics.jsonl: line 2, column | run: no metrics, so no curves | &lt;ptb&gt; | run: \
         MISSING: PTB | run: no results, audit or texts:  | text.txt | Sample 1",
    );
    lab.write("run/metrics.jsonl", metrics);
    lab.write("run/suite.jsonl", "nonsense\n");
    report().says("run/suite.jsonl: line 1, column");
    assert!(lab.read("report.html").contains("Loss against steps"));
}
