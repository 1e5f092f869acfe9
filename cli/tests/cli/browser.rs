//! The page of `ltm report` in a real browser: Chromium, without a window, steered through two pipes.
//!
//! Runs where a `chromium` (or `chromium-browser`, `google-chrome`) is in the path, `apt-get install chromium` for one, and says
//! that it was skipped where there is none. With `LTM_PICTURES=FOLDER` it leaves the page, its pictures at both widths, encoded
//! in base64, and its print there, for somebody to look at.

use super::*;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout};

/// A browser, and what it said so far.
struct Browser {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    calls: u64,
    session: Option<String>,
    events: Vec<Value>,
}

impl Browser {
    /// `None` if there is no Chromium.
    fn start(profile: &Path) -> Option<Self> {
        let names = ["chromium", "chromium-browser", "google-chrome"];
        let there = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|said| said.status.success());
        let name = names.into_iter().find(there)?;
        // The protocol is spoken on the descriptors 3 and 4.
        let line = format!(
            "exec {name} --headless=new --no-sandbox --disable-gpu --no-first-run --remote-debugging-pipe \"--user-data-dir=$0\" 3<&0 4>&1 \
             1>&2 2>/dev/null"
        );
        let mut process = Command::new("sh")
            .args(["-c", &line])
            .arg(profile)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        let mut browser = Self { process, input, output, calls: 0, session: None, events: Vec::new() };
        let target = browser.call("Target.createTarget", "{\"url\":\"about:blank\"}");
        let target = target["targetId"].as_str().unwrap();
        let attach = format!("{{\"targetId\":\"{target}\",\"flatten\":true}}");
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_string());
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), "{}");
        }
        Some(browser)
    }

    fn message(&mut self) -> Value {
        let mut bytes = Vec::new();
        let n = self.output.read_until(0, &mut bytes).unwrap();
        assert!(n > 0, "the browser has ended");
        bytes.pop();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Calls a method of the protocol and waits for its result.
    fn call(&mut self, method: &str, parameters: &str) -> Value {
        self.calls += 1;
        let session = self.session.as_ref().map_or(String::new(), |id| format!(",\"sessionId\":\"{id}\""));
        let message = format!("{{\"id\":{},\"method\":\"{method}\",\"params\":{parameters}{session}}}\0", self.calls);
        self.input.as_mut().unwrap().write_all(message.as_bytes()).unwrap();
        loop {
            let answer = self.message();
            match answer["id"].as_u64() {
                Some(id) if id == self.calls => {
                    return answer.get("result").unwrap_or_else(|| panic!("{method}: {answer}")).clone();
                }
                Some(_) => {}
                None => self.events.push(answer),
            }
        }
    }

    /// What an expression is in the page.
    fn evaluate(&mut self, expression: &str) -> Value {
        let expression = Value::from(expression);
        let said = self.call("Runtime.evaluate", &format!("{{\"expression\":{expression},\"returnByValue\":true}}"));
        said["result"]["value"].clone()
    }

    /// Opens a page on a screen of a width and waits until it is there.
    fn open(&mut self, url: &str, width: u32, mobile: bool) {
        let screen = format!("{{\"width\":{width},\"height\":844,\"deviceScaleFactor\":1,\"mobile\":{mobile}}}");
        self.call("Emulation.setDeviceMetricsOverride", &screen);
        self.events.clear();
        self.call("Page.navigate", &format!("{{\"url\":{}}}", Value::from(url)));
        while !self.events.iter().any(|event| method(event) == "Page.loadEventFired") {
            let event = self.message();
            self.events.push(event);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Without its pipe it ends by itself; a test that failed does not wait for that.
        drop(self.input.take());
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn method(event: &Value) -> &str {
    event["method"].as_str().unwrap_or_default()
}

fn keep(name: &str, content: impl AsRef<[u8]>) {
    if let Some(folder) = std::env::var_os("LTM_PICTURES") {
        fs::create_dir_all(&folder).unwrap();
        fs::write(Path::new(&folder).join(name), content).unwrap();
    }
}

#[test]
fn a_browser_shows_the_page_and_asks_for_nothing() {
    let profile = tempfile::tempdir().unwrap();
    let Some(mut browser) = Browser::start(profile.path()) else {
        // Not by `println!`, which a test that passes is not heard by.
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
    let path = lab.path("report.html");
    keep("report.html", fs::read(&path).unwrap());
    let url = format!("file://{}", path.display());

    for (width, mobile) in [(390, true), (1280, false)] {
        browser.open(&url, width, mobile);
        let title = browser.evaluate("document.title");
        assert!(title.as_str().unwrap().starts_with("ltm report: run, a run <img"), "no script has run: {title}");
        assert_eq!(browser.evaluate("document.scripts.length + document.images.length").as_u64(), Some(0));
        assert_eq!(browser.evaluate("innerWidth").as_u64(), Some(u64::from(width)));
        let body = browser.evaluate("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)");
        assert!(body.as_u64().unwrap() <= u64::from(width), "the page is {body} wide at {width}");
        // What is wider than the page scrolls by itself, tables alone do that.
        let wide = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') \
                    && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80)).join()";
        assert_eq!(browser.evaluate(wide).as_str(), Some(""), "at {width}");
        assert!(browser.evaluate("document.querySelectorAll('figure svg polyline').length").as_u64().unwrap() >= 11);
        let picture = browser.call("Page.captureScreenshot", "{\"captureBeyondViewport\":true}");
        keep(&format!("report-{width}.png.base64"), picture["data"].as_str().unwrap());

        let troubles = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        let said: Vec<_> = browser.events.iter().filter(|event| troubles.contains(&method(event))).collect();
        assert!(said.is_empty(), "the console says {said:?}");
        let asked = browser.events.iter().filter(|event| method(event) == "Network.requestWillBeSent");
        let asked: Vec<&str> = asked.map(|event| event["params"]["request"]["url"].as_str().unwrap()).collect();
        assert_eq!(asked, [url.as_str()], "the page itself is all that is asked for");
    }
    let print = browser.call("Page.printToPDF", "{}");
    let print = print["data"].as_str().unwrap();
    assert!(print.starts_with("JVBERi") && print.len() > 20_000, "a PDF of {} characters", print.len());
    keep("report.pdf.base64", print);

    // The same eyes see what must not be.
    let bad =
        "<body style=\"width: 2000px\"><script>console.error('seen')</script><img src=\"http://127.0.0.1:9/x.png\">";
    lab.write("bad.html", bad);
    browser.open(&format!("file://{}", lab.path("bad.html").display()), 390, true);
    assert!(browser.evaluate("document.documentElement.scrollWidth").as_u64().unwrap() > 390);
    assert!(browser.events.iter().any(|event| method(event) == "Runtime.consoleAPICalled"));
    assert_eq!(browser.events.iter().filter(|event| method(event) == "Network.requestWillBeSent").count(), 2);

    // Its processes end before their folder goes.
    browser.session = None;
    browser.call("Browser.close", "{}");
    browser.process.wait().unwrap();
}
