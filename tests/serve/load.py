"""64 clients at once against `ltm serve`, with the answers that each request has alone.

    python3 load.py PROGRAM OUT [--seconds S] [--run RUN]

First all kinds of requests for S seconds (120): no error, no lost or mixed answer, and memory that does not grow. Then texts only, in turn
with `ltm generate`, to compare tokens a second. Needs nothing but Python. Without --run, a small model is trained into OUT first."""

import argparse
import atexit
import http.client
import json
import random
import re
import shutil
import statistics
import subprocess
import threading
import time
from pathlib import Path

CLIENTS, TEXT, TOKENS = 64, "Ten green bottles", 64
parser = argparse.ArgumentParser()
parser.add_argument("program", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--seconds", type=float, default=120)
parser.add_argument("--run", type=Path)
args = parser.parse_args()
program, out = str(args.program.resolve()), args.out.resolve()


def ltm(*words):
    return subprocess.run([program, *map(str, words)], check=True, capture_output=True, text=True)


if not args.run:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    settings = ["train.steps=60", "train.eval_every=0", "train.sample_every=0", "slow.warmup=5"]
    ltm("train", "--preset", "demo", "--out", out / "run", "--set", *settings)
run = args.run or out / "run"
server = subprocess.Popen([program, "serve", run, "--addr", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
atexit.register(server.kill)
address = server.stdout.readline().strip().removeprefix("http://")


def complete(connection, body):
    """The choices of a completion, without its id and time; of a stream, joined."""
    connection.request("POST", "/v1/completions", json.dumps(body))
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status == 200, f"{answer.status}: {text}"
    if not body.get("stream"):
        return json.loads(text)["choices"]
    assert text.endswith("data: [DONE]\n\n"), text[-200:]
    frames = [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]
    return ["".join(choice["text"] for frame in frames for choice in frame["choices"]), frames[-1]["choices"][0]["finish_reason"]]


def memory():
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def clients(work):
    """Calls `work` with every client's number and connection; raises what one of them raised."""
    failures = []

    def client(number):
        try:
            work(number, http.client.HTTPConnection(address, timeout=600))
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


words = "ten nine eight green red bottles wall fell rained Monday".split()
pick = random.Random(7)


def request():
    prompt = " ".join(pick.choices(words, k=pick.randrange(1, 12)))
    body = {"prompt": prompt, "seed": pick.randrange(1000), "max_tokens": pick.randrange(1, 24)}
    kind = pick.randrange(4)
    if kind == 1:
        body["stream"] = True
    if kind == 2:
        body |= {"echo": True, "logprobs": 3, "max_tokens": pick.randrange(2)}
    if kind == 3:
        body |= {"n": 2, "logprobs": 1, "stop": ["e"]}
    return body


alone = http.client.HTTPConnection(address)
requests = [(body, complete(alone, body)) for body in (request() for _ in range(CLIENTS))]
end, answers, sizes = time.time() + args.seconds, [0] * CLIENTS, []


def mixed(number, connection):
    choose = random.Random(number)
    while time.time() < end:
        body, expected = choose.choice(requests)
        found = complete(connection, body)
        assert found == expected, f"{body}: another answer than alone"
        answers[number] += 1
        if number == 0:
            sizes.append((time.time(), memory()))


clients(mixed)
half = [[size for when, size in sizes if (when > end - args.seconds / 2) == late] for late in [False, True]]
before, after = (max(sizes) for sizes in half)
print(f"{sum(answers)} answers to {CLIENTS} clients in {args.seconds:.0f} s, all as alone; {min(answers)} to {max(answers)} each")
print(f"memory: at most {before:.1f} MiB in the first half, {after:.1f} MiB in the second")
assert after < 1.02 * before and min(answers) > 0

# The same texts from the server and from `ltm generate`, in turn. Both say how many tokens they drew.
ratios = []
for repeat in range(5):
    drawn = [0] * CLIENTS

    def write(number, connection):
        body = {"prompt": TEXT, "seed": CLIENTS * repeat + number, "max_tokens": TOKENS}
        connection.request("POST", "/v1/completions", json.dumps(body))
        drawn[number] = json.loads(connection.getresponse().read())["usage"]["completion_tokens"]

    began = time.time()
    clients(write)
    served = sum(drawn) / (time.time() - began)
    said = ltm("generate", run, "--prompt", TEXT, "--samples", CLIENTS, "--tokens", TOKENS, "--seed", repeat).stderr
    generated = float(re.search(r"([\d.,]+) tokens/s", said)[1].replace(",", ""))
    ratios.append(served / generated)
    print(f"{served:.1f} tokens/s served, {generated:.1f} generated", flush=True)
print(f"the server draws {statistics.median(ratios):.2f} of the tokens of ltm generate")
assert statistics.median(ratios) > 0.9
server.terminate()
assert server.wait(15) == 0
