"""Opens the page of `ltm serve` in Chromium, without a window, uses it, and checks what it shows against the server's own answers.

    python3 tests/page/check.py LTM FOLDER

LTM is the program. FOLDER, which must not exist, gets two tiny runs and screenshots. Needs chromium and no packages.
"""

import base64
import fcntl
import json
import math
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

SETTINGS = """model.dim=16 model.heads=2 model.seq=96 model.latents=4 train.batch=8 fast.steps=2 train.steps=30 train.eval_every=0
    train.sample_every=0 slow.warmup=2""".split()
# Markup that must stay text, characters of two, three and four bytes, and a line break.
PROMPT = "Zoë <b>saw</b> & → 𝄞\nthe "
failures = []


def expect(is_right, what, seen=None):
    if not is_right:
        failures.append(what)
        print(f"wrong: {what}" + ("" if seen is None else f": {seen!r}"), file=sys.stderr)


class Server:
    """`ltm serve` on a free port."""

    def __init__(self, ltm, *args):
        command = [ltm, "serve", *args, "--addr", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()

    def ask(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(urllib.request.Request(self.url + path, data), timeout=60)

    def text(self, path):
        return self.ask(path).read().decode()

    def end(self):
        self.process.terminate()
        self.process.wait(20)


class Page:
    """A tab of Chromium, by the DevTools protocol on file descriptors 3 (to it) and 4 (from it)."""

    def __init__(self, folder):
        (there, to), (back, out) = os.pipe(), os.pipe()
        # Above the numbers that the shell gives away.
        there, out = (fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (there, out))
        chromium = "exec chromium --headless=new --no-sandbox --disable-gpu --remote-debugging-pipe"
        command = f'{chromium} --user-data-dir="$0" 3<&{there} 4>&{out} 2>"$0.log"'
        self.process = subprocess.Popen(["bash", "-c", command, f"{folder}/profile"], pass_fds=(there, out))
        os.close(there)
        os.close(out)
        self.to, self.back = os.fdopen(to, "wb", 0), os.fdopen(back, "rb")
        self.folder, self.number, self.session = folder, 0, None
        self.console, self.urls = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def read(self):
        said = bytearray()
        while (byte := self.back.read(1)) != b"\0":
            if not byte:
                raise SystemExit(f"chromium has ended: see {self.folder}/profile.log")
            said += byte
        return json.loads(said)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        while (said := self.read()).get("id") != self.number:
            self.note(said["method"], said["params"])
        if "error" in said:
            raise SystemExit(f"{method}: {said['error']}")
        return said["result"]

    def note(self, method, params):
        if method == "Network.requestWillBeSent":
            self.urls.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(params["exceptionDetails"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("warning", "error"):
            self.console.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.console.append([arg.get("value") for arg in params["args"]])

    def js(self, code):
        said = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in said:
            raise SystemExit(f"{code}\n{said['exceptionDetails']}")
        return said["result"].get("value")

    def wait(self, what, condition):
        """Waits until `condition` holds in the page."""
        end = time.monotonic() + 60
        while not self.js(condition):
            if time.monotonic() > end:
                self.shot("late")
                raise SystemExit(f"too late: {what}")
            time.sleep(0.05)

    def open(self, url, width, height):
        self.size(width, height)
        self.call("Page.navigate", url=url)
        self.wait("the page", "document.readyState === 'complete' && !!document.getElementById('model')")

    def size(self, width, height):
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1 + phone, mobile=phone)

    def type(self, field, text):
        self.js(f"document.getElementById('{field}').focus(); document.getElementById('{field}').select()")
        self.call("Input.insertText", text=text)

    def key(self, key, modifiers=0):
        code = {"Enter": 13, "ArrowRight": 39}[key]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers)

    def click(self, element):
        x, y = self.js(f"""(element => {{ element.scrollIntoView({{block: 'center'}});
            const {{x, y, width, height}} = element.getClientRects()[0]; return [x + width / 2, y + height / 2]; }})({element})""")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def value(self, field):
        """What an element shows, or nothing if it is hidden."""
        return self.js(f"(e => e.checkVisibility() ? e.textContent : '')(document.getElementById('{field}'))")

    def ended(self):
        self.wait("the end of the answer", "document.getElementById('run').textContent === 'Run'")

    def shot(self, name):
        self.js("scrollTo(0, 0)")
        image = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with open(f"{self.folder}/{name}.png", "wb") as file:
            file.write(base64.b64decode(image))

    def fits(self, width):
        wide = self.js("Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")
        expect(wide <= width, f"a page of {width} pixels scrolls sideways", wide)

    def quiet(self, allowed=""):
        """Nothing was said on the console but failed requests with the status `allowed`."""
        loud = [said for said in self.console if not (allowed and f"status of {allowed}" in str(said))]
        expect(not loud, "the console is not quiet", loud)
        self.console.clear()


SPANS = """[...document.querySelectorAll('#text > span')].map(span => ({
    text: span.textContent, isPrompt: span.className.includes('prompt'), bits: span.dataset.bits ?? null, title: span.title,
    mark: span.dataset.mark ?? null, colour: getComputedStyle(span).backgroundColor }))"""


def request(model, seed, tokens, **more):
    """What the page asks for."""
    return {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 1, "top_p": 1, "seed": seed, "echo": True, **more}


def torn(server):
    """A seed and a number of tokens, with which the text ends within a character."""
    for seed in range(3, 100):
        body = request("ltm", seed, 40, echo=False, logprobs=0)
        drawn = json.load(server.ask("/v1/completions", body))["choices"][0]["logprobs"]["tokens"]
        begins = [i for i, token in enumerate(drawn) if token.startswith("bytes:") and 0xC2 <= int(token[-2:], 16) <= 0xF4]
        if begins and begins[-1] > 3:
            return seed, begins[-1] + 1
    raise SystemExit("no text ends within a character")


def latent(page, server, config, seed, tokens, width, height):
    """A latent model: text, costs and the KL of its latents."""
    page.open(server.url, width, height)
    page.wait("the models", "document.getElementById('model').options.length === 2")
    page.type("prompt", PROMPT)
    page.type("max_tokens", str(tokens))
    page.type("seed", str(seed))
    page.key("Enter", modifiers=2)
    page.wait("a beginning", "document.getElementById('status').textContent !== ''")
    page.ended()
    answer = json.load(server.ask("/v1/completions", request("ltm", seed, tokens, logprobs=5)))
    choice, usage = answer["choices"][0], answer["usage"]
    logprobs, spans, text = choice["logprobs"], page.js(SPANS), page.value("text")
    expect(text.startswith(PROMPT), "the text begins with the prompt", text)
    expect(text == choice["text"], "the text is the server's", (text, choice["text"]))
    expect(page.value("error") == "", "no error", page.value("error"))
    expect(len(spans) == usage["total_tokens"], "a span for every token", (len(spans), usage))
    prompts = sum(span["isPrompt"] for span in spans)
    expect(prompts == usage["prompt_tokens"], "the prompt's tokens differ from others", (prompts, usage))
    # The first token of a prompt has no number.
    expect(spans and "no number" in spans[0]["title"], "the first token has no number", spans[:1])
    for span, log_p in zip(spans[1:], logprobs["token_logprobs"][1:]):
        is_right = span["bits"] and abs(float(span["bits"]) + log_p / math.log(2)) < 1e-9 and "bits" in span["title"]
        expect(is_right, "a span has the cost of its token", (span, log_p))
        expect(span["text"] or span["mark"], "a token without a character has a mark", span)
    for span, token in zip(spans, logprobs["tokens"]):
        is_whole = not token.startswith("bytes:")
        expect(not is_whole or token in (span["text"], span["mark"]), "a token of whole characters stands alone", (span, token))
    expect(len({span["colour"] for span in spans}) > 3, "costs have colours")
    expect(answer["system_fingerprint"] in page.value("how"), "the page says how numbers are made", page.value("how"))
    status = page.value("status")
    for part in (f"Prompt: {usage['prompt_tokens']} tokens", f"Drawn: {usage['completion_tokens']} tokens", "bits a byte"):
        expect(part in status, f"the totals say {part}", status)

    maps = page.js("""document.getElementById('latents').checkVisibility() ? [...document.querySelectorAll('#maps figure')].map(figure =>
        [...figure.querySelectorAll('tr')].map(row => [...row.cells].filter(cell => cell.title.includes('bits')).length)) : []""")
    layers, per_layer = config["model"]["layers"], config["model"]["latents"]
    expect(len(maps) > 1, "the prompt and what is drawn have maps", maps)
    expect(all(rows == [per_layer] * layers for rows in maps), f"a map has {layers} x {per_layer} cells", maps)
    colours = page.js("new Set([...document.querySelectorAll('#maps td')].map(cell => cell.style.background)).size")
    expect(colours > 3, "the KL has colours", colours)
    sums = page.js("[...document.querySelectorAll('#maps figcaption')].map(caption => caption.textContent)")
    nats = [sum(block["kl"]) for block in choice["blocks"]]
    expect([caption.split(": ")[1] for caption in sums] == [f"{kl / math.log(2):.1f} bits" for kl in nats], "a map has its sum", sums)

    number = len(spans) - 2
    page.click(f"document.querySelectorAll('#text > span')[{number}]")
    rows = "[...document.querySelectorAll('#token tr')].map(row => [...row.cells].map(cell => cell.textContent))"
    top, seen = logprobs["top_logprobs"][number], page.js(rows)
    likeliest = [f"{100 * math.exp(log_p):.2f} %" for log_p in sorted(top.values(), reverse=True)[:5]]
    expect([row[1] for row in seen[1:]] == likeliest, "a chosen token shows the five likeliest", (seen, likeliest))
    expect(seen and seen[0][1] == f"{100 * math.exp(logprobs['token_logprobs'][number]):.2f} %", "and its own", seen)
    near = page.js("document.querySelectorAll('#text > .near').length")
    expect(near == usage["completion_tokens"], "and its block", near)
    page.js("document.getElementById('text').focus()")
    page.key("ArrowRight")
    told, name = page.value("token"), logprobs["tokens"][-1].replace("bytes:", "byte").replace("\\x", " ")
    expect(f"Token {number + 1}" in told, "the right arrow chooses the next", told)
    # The last token is a part of a character.
    expect(name in told and "\\x" not in told, "a part of a character has a name to be read", (told, name))
    page.fits(width)
    page.shot(f"latent-{width}")
    if width < 600:
        page.size(360, height)
        page.fits(360)
        light = page.js("getComputedStyle(document.body).backgroundColor")
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        expect(page.js("getComputedStyle(document.body).backgroundColor") != light, "there is a dark page")
        page.shot("dark-360")
        page.call("Emulation.setEmulatedMedia", features=[])
        page.size(width, height)
    page.quiet()


def diffusion(page, server, seed, tokens):
    """Masked diffusion: text alone."""
    page.js("document.getElementById('model').value = 'mdlm'; document.getElementById('model').onchange()")
    page.click("document.getElementById('run')")
    page.ended()
    text, spans = page.value("text"), page.js(SPANS)
    answer = json.load(server.ask("/v1/completions", request("mdlm", seed, tokens)))
    expect(text == answer["choices"][0]["text"], "masked diffusion: the text is the server's", (text, answer))
    expect(not any(span["bits"] for span in spans), "masked diffusion has no costs")
    expect(page.value("latents") == "" and page.value("legend") == "", "masked diffusion has no maps and no legend")
    expect(f"Drawn: {answer['usage']['completion_tokens']} tokens" in page.value("status"), "nor bits", page.value("status"))
    page.shot("diffusion-1280")
    page.quiet()


def stopped(page, server):
    """Stop ends the request, here and in the server."""
    page.js("document.getElementById('model').value = 'ltm'")
    page.type("max_tokens", "1024")
    page.type("temperature", "1")
    drawn = page.js("""new Promise(resolve => {
        const button = document.getElementById('run'), drawn = () => document.querySelectorAll('#text > .drawn').length;
        button.click();
        setTimeout(function look() {
            if (button.textContent === 'Stop' && drawn() < 3) return setTimeout(look, 1);
            button.click();
            resolve(drawn());
        }, 1);
    })""")
    page.ended()
    expect(page.value("status").endswith("Stopped."), "Stop stops", page.value("status"))
    expect(page.value("error") == "", "Stop is no error", page.value("error"))
    end = time.monotonic() + 10
    while "ltm_queue 0" not in server.text("/metrics") and time.monotonic() < end:
        time.sleep(0.05)
    expect("ltm_queue 0" in server.text("/metrics"), "the server's place is free again")
    later = page.js("document.querySelectorAll('#text > .drawn').length")
    expect(drawn <= later < 512, "no tokens come after Stop", (drawn, later))
    page.quiet()


def refused(page, server):
    """The server's own words for a prompt that is too long."""
    page.type("prompt", "long " * 40)
    page.click("document.getElementById('run')")
    page.ended()
    try:
        server.ask("/v1/completions", {"model": "ltm", "prompt": "long " * 40})
        message = "no error"
    except urllib.error.HTTPError as error:
        message = json.load(error)["error"]["message"]
    expect(page.value("error") == message and "200 tokens" in message, "the error is the server's", (page.value("error"), message))
    page.shot("error-1280")
    page.quiet(allowed="400")


def locked(page, ltm, run):
    """A server with a key: the page asks for it."""
    server = Server(ltm, run, "--api-key", "open sesame")
    try:
        page.open(server.url, 390, 844)
        page.wait("a field for the key", "!document.getElementById('locked').hidden")
        expect("Bearer" in page.value("error"), "the error says what is missing", page.value("error"))
        page.shot("key-390")
        page.type("key", "open sesame")
        page.js("document.getElementById('key').blur()")
        page.wait("the models", "document.getElementById('model').options.length === 1")
        expect(page.value("error") == "", "the error goes", page.value("error"))
        page.type("prompt", "One ")
        page.click("document.getElementById('run')")
        page.ended()
        expect(page.value("text").startswith("One "), "the key opens the server", page.value("text"))
        page.quiet(allowed="401")
    finally:
        server.end()


def main(ltm, folder):
    os.makedirs(folder)
    for kind in ("ltm", "mdlm"):
        command = [ltm, "train", "--preset", "demo", "--device", "cpu", "--threads", "1", "--model", kind, "--out", f"{folder}/{kind}"]
        trained = subprocess.run([*command, "--set", *SETTINGS], capture_output=True, text=True)
        if trained.returncode:
            raise SystemExit(trained.stderr)
    with open(f"{folder}/ltm/config.json") as file:
        config = json.load(file)
    server = Server(ltm, f"{folder}/ltm", f"{folder}/mdlm")
    page = None
    try:
        with server.ask("/") as answer:
            kind, policy = (answer.headers.get(name, "") for name in ("Content-Type", "Content-Security-Policy"))
        expect(kind == "text/html; charset=utf-8" and policy.startswith("default-src 'none'"), "headers of the page", (kind, policy))
        page = Page(folder)
        seed, tokens = torn(server)
        latent(page, server, config, seed, tokens, 390, 844)
        latent(page, server, config, seed, tokens, 1280, 800)
        diffusion(page, server, seed, tokens)
        stopped(page, server)
        refused(page, server)
        expect('path="/"' in server.text("/metrics"), "the page is counted")
        foreign = [url for url in page.urls if not url.startswith((f"{server.url}/", "data:", "about:"))]
        expect(page.urls and not foreign, "the page asks no other host", foreign)
        locked(page, ltm, f"{folder}/ltm")
    finally:
        server.end()
        if page:
            page.process.terminate()
            page.process.wait(20)
    if failures:
        raise SystemExit(f"the page is wrong in {len(failures)} ways")
    print(f"the page is right on phone and screen; screenshots in {folder}")


if __name__ == "__main__":
    main(*sys.argv[1:])
