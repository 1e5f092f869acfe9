"""The model of examples/char_gpt.rs in PyTorch: batches of the same size, first weights by the same rule, the same optimiser.

    python3 char_gpt.py FILE [STEPS] [--compile]

Prints the loss and the training speed. PyTorch uses as many threads as OMP_NUM_THREADS says.
"""
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, DIM, HEADS, BATCH, TOKENS = 4, 128, 4, 16, 256


def dense(inputs, outputs):
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.qkv, self.mixed = dense(DIM, 3 * DIM), dense(DIM, DIM)
        self.up, self.down = dense(DIM, 4 * DIM), dense(4 * DIM, DIM)

    def forward(self, h):
        heads = [x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in self.qkv(self.norm1(h)).split(DIM, -1)]
        h = h + self.mixed(F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2))
        return h + self.down(F.gelu(self.up(self.norm2(h)), approximate="tanh"))


class Model(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.table = nn.Parameter(torch.randn(vocab, DIM) * 0.02)
        self.places = nn.Parameter(torch.randn(TOKENS, DIM) * 0.02)
        self.layers = nn.Sequential(*[Layer() for _ in range(LAYERS)])
        self.norm, self.head = nn.LayerNorm(DIM), dense(DIM, vocab)

    def forward(self, tokens, targets):
        h = self.layers(F.embedding(tokens, self.table) + self.places)
        return F.cross_entropy(self.head(self.norm(h)).flatten(0, 1), targets.flatten())


def main():
    arguments = [a for a in sys.argv[1:] if not a.startswith("--")]
    steps = int(arguments[1]) if len(arguments) > 1 else 300
    text = open(arguments[0], encoding="utf-8").read()
    alphabet = sorted(set(text))
    codes = torch.tensor([alphabet.index(c) for c in text])
    train, held_out = codes[: len(codes) * 9 // 10], codes[len(codes) * 9 // 10 :]
    torch.manual_seed(0)
    model = Model(len(alphabet))
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8)
    run = torch.compile(model) if "--compile" in sys.argv else model

    def batch(text):
        starts = torch.randint(len(text) - TOKENS, (BATCH,))
        rows = torch.stack([text[s : s + TOKENS + 1] for s in starts])
        return rows[:, :-1], rows[:, 1:]

    begin, counted = time.time(), 0
    for step in range(1, steps + 1):
        loss = run(*batch(train))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        counted += BATCH * TOKENS
        if step == 5:
            # The first steps compile.
            begin, counted = time.time(), 0
        if step % 50 == 0 or step == steps:
            print(f"step {step:4}  loss {loss.item():.4f}  {counted / (time.time() - begin):.0f} tokens/s", flush=True)
    with torch.no_grad():
        print(f"loss on text held out: {run(*batch(held_out)).item():.4f} nats per character")


main()
