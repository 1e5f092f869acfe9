use super::*;
use std::fs;

#[test]
fn numbers_behind_the_mark() {
    let same = [
        ("18", "so it is 3\n#### 18\nand 4"),
        ("70000", "#### $70,000.00."),
        ("1000", "#### 1,000\r\n"),
        ("1234567", "#### 1,234,567"),
        ("-5", "####-5"),
        ("-5.5", "#### -$5.50"),
        ("-5.5", "#### $ -5.5"),
        ("7", "#### 007"),
        ("0", "#### -0.0"),
        ("3", "#### 3.0"),
        ("0.25", "#### 0.25%"),
        ("0.5", "#### .5"),
        ("50", "#### 50 %."),
    ];
    for (expected, text) in same {
        assert_eq!(number(text).as_deref(), Some(expected), "{text:?}");
    }
    let none = "|x18|1.2.3|5..|.|-|$|%|1/2|1e3|10:30|1 000|1 or 2|18 eggs|5kg|1-2|--5|1,2|1,00,000|1000,000|,5|5,|½|٣";
    for said in none.split('|') {
        assert_eq!(number(&format!("#### {said}")), None, "{said:?}");
    }
    for text in ["the answer is 18", "####", "####\n18"] {
        assert_eq!(number(text), None, "{text:?}");
    }
}

/// Against the mean over every choice of k texts.
#[test]
fn pass_at_k_is_the_mean_over_all_choices() {
    for (n, right, k) in [(5, 2, 1), (5, 2, 2), (6, 1, 3), (6, 0, 3), (6, 4, 3), (7, 7, 5), (5, 5, 5), (4, 1, 4)] {
        let choices = (0u32..1 << n).filter(|set| set.count_ones() as usize == k);
        let (hits, all) =
            choices.fold((0, 0), |(hits, all), set| (hits + usize::from(set & ((1 << right) - 1) != 0), all + 1));
        let expected = hits as f64 / f64::from(all);
        assert!((pass_at(k, n, right) - expected).abs() < 1e-12, "{n} {right} {k}");
    }
}

#[test]
fn problems_that_do_not_differ_have_a_bound_and_no_error() {
    let line = |problem, right| Line {
        problem,
        sample: 0,
        prompt: String::new(),
        text: String::new(),
        answer: None,
        expected: None,
        right,
    };
    // How many problems there are, which are right; the share, and the bound.
    for (n, right, share, bound) in [
        (30, 0..0, 0.0, "{\"at_most\":0.095"),
        (30, 0..30, 1.0, "{\"at_least\":0.904"),
        (1, 0..0, 0.0, "{\"at_most\":0.95"),
        (4, 1..3, 0.5, "null"),
    ] {
        let lines: Vec<Line> = (0..n).map(|i| line(i, right.contains(&i))).collect();
        let found = pass(1, 1, &lines);
        assert_eq!((found.pass, found.standard_error.is_nan()), (share, found.bound.is_some()));
        let line = json::line(&found);
        assert!(line.contains(&format!("\"bound_95_percent\":{bound}")), "{n} {right:?}: {line}");
    }
    // One of two texts of each is right.
    let found = pass(1, 2, &(0..8).map(|i| line(i / 2, i % 2 == 0)).collect::<Vec<_>>());
    assert!((found.pass, found.bound) == (0.5, None) && found.standard_error.is_nan());
    assert!(json::line(&found).contains("\"standard_error\":null"));
    assert!(pass(1, 2, &[]).pass.is_nan());
}

#[test]
fn an_example_is_not_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write = |name: &str, all: &[(&str, &str)]| {
        let all = all.iter().map(|&(q, a)| Problem { question: q.into(), answer: a.into() });
        fs::write(path(name), all.map(|problem| json::line(&problem) + "\n").collect::<String>()).unwrap();
    };
    let (own, rest) = (("Two and two?", "2 + 2 = 4\n#### 4"), ("Three and one?", "#### 4"));
    // The same, with other blanks around it, with another answer.
    let copies = [own, ("Two and two? ", "2 + 2 = 4\n#### 4"), ("\tTwo and two?\r\n", "#### 4.0")];
    write("own", &[&copies[..], &[rest]].concat());
    write("other", &copies[1..2]);
    for examples in [None, Some(path("own")), Some(path("other"))] {
        let options = Options { file: path("own"), shots: 1, examples, ..Options::default() };
        let (_, asked) = problems(&options).unwrap();
        assert_eq!(asked.iter().map(|problem| &*problem.question).collect::<Vec<_>>(), [rest.0]);
    }
}

#[test]
fn files_and_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.jsonl");
    let problem = |q: &str, a: &str| Problem { question: q.into(), answer: a.into() };
    let problems = [problem("Two and two?", "2 + 2 = 4\n#### 4"), problem("\"One\"?", "#### 1")];
    let lines: String = problems.iter().map(|p| json::line(p) + "\n\n").collect();
    fs::write(&path, lines).unwrap();
    assert_eq!(read(&path).unwrap(), problems);
    assert_eq!(
        prompt(&problems[..1], &problems[1]),
        "Question: Two and two?\nAnswer: 2 + 2 = 4\n#### 4\n\nQuestion: \"One\"?\nAnswer:"
    );
    let error = |text: &str| {
        fs::write(&path, text).unwrap();
        read(&path).unwrap_err().to_string()
    };
    assert!(error("\n").ends_with("p.jsonl has no problem"));
    let second = error("{\"question\": \"q\", \"answer\": \"#### 1\"}\n{\"question\": 3}\n");
    assert!(second.contains("p.jsonl:2: ") && second.contains("expected a string"), "{second}");
    for answer in ["four", "#### four", "#### 1/2", "#### 1e3", "#### 10:30", "#### 1 000"] {
        let said = error(&json::line(&problem("q", answer)));
        assert!(said.contains("p.jsonl:1: answer: after \"####\" there must be one number"), "{answer}: {said}");
    }
    assert!(error("question").contains("p.jsonl:1: "));
}
