//! The page of `ltm report` in a real browser: Chromium, without a window.
//!
//! Needs `chromium` (or `chromium-browser`, `google-chrome`) in the path, e.g. by `apt-get install chromium`; without
//! it the test reports that it was skipped.

use super::*;
use serde_json::Value;
use std::io::Write;

/// Shows pages in frames of phone and screen width, and writes their properties as JSON into its title.
const FRAMES: &str = "
<iframe src=report.html width=390 height=4000></iframe>
<iframe src=report.html width=1280 height=4000></iframe>
<iframe src=bad.html width=390 height=100></iframe>
<script>onload = () => document.title = JSON.stringify([0, 1, 2].map(i => frames[i]).map(frame => {
    const all = [...frame.document.querySelectorAll('body *')];
    const wide = all.filter(e => !e.closest('.scroll') && e.getBoundingClientRect().right > frame.innerWidth + 1);
    return {
        title: frame.document.title,
        active: frame.document.scripts.length + frame.document.images.length,
        too_wide: wide.map(e => e.outerHTML.slice(0, 80)),
        is_wide: Math.max(frame.document.documentElement.scrollWidth, frame.document.body.scrollWidth) > frame.innerWidth,
        has_lines: frame.document.querySelectorAll('figure svg polyline').length >= 11,
        asked_for: frame.performance.getEntriesByType('resource').map(e => e.name),
    };
}))</script>";

#[test]
fn a_browser_shows_the_page_and_asks_for_nothing() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let there = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success());
    let Some(chromium) = names.into_iter().find(there) else {
        // Not by `println!`, whose output is hidden in a passing test.
        writeln!(std::io::stderr(), "skipped: no Chromium in the path: the report was not opened in a browser")
            .unwrap();
        return;
    };
    let lab = Lab::new();
    let markup =
        |i: usize| format!("<script>document.title={i}</script><img src=http://x.org/{i}> {i} bottles & more\n");
    lab.write("text.txt", (0..60).map(markup).collect::<String>());
    let odd = "a run <img src=x onerror=document.title=1> with_a_name_that_is_longer_than_any_telephone_is_wide";
    for (name, kind) in [("run", "ltm"), (odd, "ltm"), ("ar", "ar")] {
        lab.run(&[&["train", "--data", "text.txt", "--out", name, "--model", kind, "--set"], TINY].concat()).succeeds();
    }
    let prompt = "<script>document.title='gone'</script>";
    lab.run(&["report", "run", odd, "ar", "--limit", "4", "--tokens", "60", "--prompt", prompt]).succeeds();
    // A violation, to test that the check finds it.
    let bad = "<body><p style='width: 2000px'><script>console.error('seen')</script><img src=http://127.0.0.1:9/x.png>";
    lab.write("bad.html", bad);
    lab.write("frames.html", FRAMES);
    let said = Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"])
        .args(["--enable-logging=stderr", "--window-size=1750,4100", "--dump-dom"])
        .arg(format!("--user-data-dir={}", lab.path("profile").display()))
        .arg(lab.path("frames.html"))
        .current_dir(lab.0.path())
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    let told = dom.split("<title>").nth(1).and_then(|rest| rest.split("</title>").next());
    let told = told.unwrap_or_else(|| panic!("{dom}\n{log}"));
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let [telephone, screen, bad]: [Value; 3] = serde_json::from_str(&told).unwrap();
    // No script has run, and only tables are wider than the page; they scroll.
    let title = format!("ltm report: run, {odd}, ar");
    let good = serde_json::json!({
        "title": title, "active": 0, "too_wide": [], "is_wide": false, "has_lines": true, "asked_for": [],
    });
    assert_eq!((&telephone, &screen), (&good, &good));
    assert_eq!(
        (&bad["active"], &bad["is_wide"], &bad["asked_for"][0]),
        (&2.into(), &true.into(), &"http://127.0.0.1:9/x.png".into())
    );
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.len() == 1 && console[0].contains("seen"), "a policy that stops something says so: {console:?}");
}
