"""Runs lm-evaluation-harness, unmodified, and OpenAI's client against `ltm serve`, and compares their numbers with `ltm eval`.

    python3 check.py PROGRAM OUT [--tasks FOLDER NAME…] [--text FILE]

OUT is a folder for runs and results. With --tasks, tasks of another folder run, too. With --text, the paragraphs of a file do, and their
cost is compared with `ltm eval`. Needs lm_eval[api] and openai. Nothing leaves the machine."""

import argparse
import atexit
import glob
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
RUNS = ["ltm", "ar", "gpt2", "ltm-windows", "ar-windows"]
parser = argparse.ArgumentParser()
parser.add_argument("program", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--tasks", nargs="+", default=[], metavar=("FOLDER", "NAME"))
parser.add_argument("--text", type=Path)
args = parser.parse_args()
program, out = str(args.program.resolve()), args.out.resolve()
shutil.rmtree(out, ignore_errors=True)
out.mkdir(parents=True)
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "hf"), "OPENAI_API_KEY": "none"}


def ltm(*words):
    done = subprocess.run([program, *map(str, words)], cwd=out, capture_output=True, text=True)
    assert done.returncode == 0, f"ltm {words}: {done.stderr}"
    return done.stdout


def lines(path):
    return [json.loads(line) for line in open(path)]


# The models: some trained for a moment, on stories and on windows of a text, and a random GPT-2.
for kind in ["ltm", "ar"]:
    settings = [f"model.kind={kind}", "train.steps=60", "train.eval_every=0", "train.sample_every=0", "slow.warmup=5"]
    ltm("train", "--preset", "demo", "--out", kind, "--set", *settings)
    settings += ["data.chunking=windows"]
    ltm("train", "--preset", "demo", "--out", f"{kind}-windows", "--data", HERE.parent.parent / "ARCHITECTURE.md", "--set", *settings)
spec = importlib.util.spec_from_file_location("make", HERE.parent / "fixtures/gpt2/make.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)
make.POSITIONS, make.VOCAB = 256, 50257
(out / "weights").mkdir()
make.write(out / "weights/model.safetensors", make.weights())
config = json.loads((HERE.parent / "fixtures/gpt2/config.json").read_text())
(out / "weights/config.json").write_text(json.dumps(config | {"n_ctx": 256, "n_positions": 256, "vocab_size": 50257}))
ltm("import", "gpt2", "weights", "--out", "gpt2")

server = subprocess.Popen(
    [program, "serve", *RUNS, "--addr", "127.0.0.1:0"], cwd=out, stdout=subprocess.PIPE, text=True
)
atexit.register(server.kill)
base = server.stdout.readline().strip()


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(base + path, data)) as answer:
        return json.load(answer)


def log_ps(model, ids, context=None):
    """What the server says of every token of a text but the first."""
    body = {"model": model, "prompt": [ids], "max_tokens": 0, "echo": True, "logprobs": 0}
    body |= {} if context is None else {"context_tokens": [context]}
    return ask("/v1/completions", body)["choices"][0]["logprobs"]["token_logprobs"][1:]


try:
    ask("/tokenizer_info")
    raise AssertionError("two tokenizers, and the request names none")
except urllib.error.HTTPError as error:
    assert error.code == 400 and b"use its own path" in error.read()
places = {model["id"]: model["max_model_len"] for model in ask("/v1/models")["data"]}
runs = 0


def harness(model, tasks, folder=HERE, client="local-completions", **options):
    """lm-eval's answers by task, in the order of the texts: for each text a list of [log p, greedy] or a text."""
    global runs
    runs += 1
    results = out / f"results-{runs}"
    settings = {"model": model, "base_url": f"{base}/run/{model}/v1/completions", "max_length": places[model] + 1} | options
    batch = ["--batch_size", str(settings.pop("batch_size", 1))]
    command = [str(HERE / "client.py")] if client != "local-completions" else ["-m", "lm_eval"]
    command = [sys.executable, *command, "run", "--model", client, "--tasks", *tasks, "--include_path", ".", "--log_samples"]
    command += batch + ["--output_path", str(results), "--model_args", ",".join(f"{k}={v}" for k, v in settings.items())]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    answers = {}
    for task in tasks:
        (found,) = glob.glob(f"{results}/**/samples_{task}_*.jsonl", recursive=True)
        answers[task] = [[answer for (answer,) in sample["resps"]] for sample in sorted(lines(found), key=lambda s: s["doc_id"])]
    (found,) = glob.glob(f"{results}/**/results_*.json", recursive=True)
    numbers = {task: {k: v for k, v in of.items() if isinstance(v, float)} for task, of in json.load(open(found))["results"].items()}
    print(f"{client} {model} {options or ''}: {json.dumps(numbers)}", flush=True)
    return answers


def eval_nats(model, texts, protocol):
    """`ltm eval`'s cost of every text, end token included."""
    tokenizer = "gpt2-plain" if model == "gpt2" else "bytes"
    for text in texts:
        (out / "text.txt").write_text(text)
        shutil.rmtree(out / "shard", ignore_errors=True)
        ltm("data", "prepare", "text.txt", "--tokenizer", tokenizer, "--out", "shard")
        said = json.loads(ltm("eval", model, "--data", "shard", "--protocol", protocol, "--json"))
        (nats,) = said["results"][0]["sequence_nats"]
        yield nats


def ids_of(model, text):
    """A text with the tokens before and after it."""
    info = ask(f"/run/{model}/tokenizer_info")
    tokens = [ask(f"/run/{model}/tokenize", {"prompt": part})["tokens"] for part in [info["bos_token"], text, info["eos_token"]]]
    return sum(tokens, [])


def compare(model, texts, answers):
    """Whole texts of a model with exact probabilities. lm-eval never scores the end token, eval does."""
    worst = 0
    for text, nats, [answer] in zip(texts, eval_nats(model, texts, "nll"), answers, strict=True):
        log_p = float(answer[0] if isinstance(answer, list) else answer) + log_ps(model, ids_of(model, text))[-1]
        worst = max(worst, abs(log_p + nats) / nats)
    print(f"{model}: {len(texts)} texts differ from ltm eval by at most {worst:.1e}")
    assert worst < 1e-5


paragraphs = []
if args.text:
    shortest = min(places.values()) - 2
    whole = args.text.read_text()
    paragraphs = [p for p in map(str.strip, whole.split("\n")) if 20 < len(p.encode()) <= shortest][:16]
    folder = out / "text"
    folder.mkdir()
    for name, texts in [("paragraphs", paragraphs), ("page", [whole[:3000]])]:
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        task = (HERE / "ppl.yaml").read_text().replace("own_ppl", name).replace("ppl.jsonl", f"{name}.jsonl")
        (folder / f"{name}.yaml").write_text(task)

tasks = ["own_mc", "own_ppl", "own_long", "own_gen"]
short = [line["text"] for line in lines(HERE / "ppl.jsonl")]
for model in places:
    one = harness(model, tasks)
    assert one == harness(model, tasks, batch_size=4), "another batch"
    assert one == harness(model, tasks, num_concurrent=8), "eight requests at once"
    if args.tasks:
        harness(model, args.tasks[1:], Path(args.tasks[0]))
    if args.text:
        found = harness(model, ["paragraphs", "page"], folder)
    if not model.startswith("ltm"):
        compare(model, short, one["own_ppl"])
        if args.text:
            compare(model, paragraphs, found["paragraphs"])

# The second half given the first: the same bits as eval's.
halves = [line["text"] for line in lines(HERE / "half.jsonl")]
context = [1 + (len(text) + 1) // 2 for text in halves]
for model in ["ltm", "ltm-windows"]:
    answers = harness(model, ["own_half"], client="ltm-context", batch_size=2)["own_half"]
    for text, seen, nats, [answer] in zip(halves, context, eval_nats(model, halves, "prefix"), answers, strict=True):
        assert text[seen - 2] != " ", "lm-eval moves a blank at the end of a context"
        served = log_ps(model, ids_of(model, text), seen)[seen - 1 :]
        # lm-eval leaves the end token out, and sends no begin token before a context.
        if model == "ltm":
            assert float(answer[0]) == sum(served[:-1]), (answer, served)
        total = 0.0
        for log_p in served:
            total -= log_p
        assert total == nats, (total, nats)
    print(f"{model}: {len(halves)} second halves have the bits of ltm eval --protocol prefix")

# OpenAI's client.
import openai  # noqa: E402

client = openai.OpenAI(base_url=base + "/v1", api_key="none")
assert [model.id for model in client.models.list()] == list(places)
body = {"model": "ltm", "prompt": "Ten green", "max_tokens": 12, "seed": 1, "logprobs": 2}
whole = client.completions.create(**body)
chunks = list(client.completions.create(**body, stream=True, stream_options={"include_usage": True}))
assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
assert chunks[-1].usage == whole.usage and whole.usage.completion_tokens == len(whole.choices[0].logprobs.tokens)
try:
    client.completions.create(model="ltm", prompt="x" * 2000)
    raise AssertionError("the prompt is too long")
except openai.BadRequestError as error:
    assert "the model reads" in str(error)
print("openai: the same text at once and as a stream")

# The examples of the README.
readme = (HERE.parent.parent / "README.md").read_text().replace("http://127.0.0.1:8080", base).replace('model="tiny"', 'model="ltm"')
python = readme.split("```python\n")[1].split("```")[0]
curl = next(line for line in readme.splitlines() if line.startswith("curl"))
said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in ([sys.executable, "-c", python], ["sh", "-c", curl])]
assert said[0].strip() and said[1].endswith("data: [DONE]\n\n"), said
print("the README's examples run")

server.terminate()
assert server.wait(15) == 0
