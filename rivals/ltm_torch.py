"""The Latent Thought Model of a preset in PyTorch, with the paper's learning: T fast steps of AdamW, then one step of AdamW.

    python3 ltm_torch.py small|medium|large [--batch 32] [--device cuda]

Prints tokens per second, the time of a fast step and the peak memory, as medians of three training steps of random tokens. On a
GPU the model is compiled, attention is flex attention, AdamW is fused, and products are in bf16 by autocast. On the CPU it is
none of these, so a run there only shows that the program works.
"""
import argparse
import contextlib
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

DIM, HEADS, VOCAB, TOKENS, WINDOW, EPS = 512, 8, 50258, 1024, 256, 1e-5
HIDDEN = -(-int(8 * DIM / 3) // 32) * 32
# Layers, latents of a layer, fast steps.
PRESETS = {"small": (3, 8, 16), "medium": (6, 4, 16), "large": (12, 8, 64)}
ITERATIONS = 3


def dense(inputs, outputs):
    return nn.Linear(inputs, outputs, bias=False)


def norm():
    return nn.RMSNorm(DIM, eps=EPS)


def angles(positions):
    """Cosines and sines for rotary positions, [N, head width / 2]."""
    width = DIM // HEADS
    frequencies = 10000.0 ** (-torch.arange(0, width, 2, device=positions.device, dtype=torch.float64) / width)
    a = positions[:, None] * frequencies
    return a.cos().float()[:, None, :], a.sin().float()[:, None, :]


def rotate(x, rotation):
    """x [B, N, H, width], whose adjacent numbers are a pair."""
    (cos, sin), a, b = rotation, x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (dense(DIM, DIM) for _ in range(4))

    def forward(self, x, source, rotation, source_rotation, attend):
        heads = lambda t: t.unflatten(-1, (HEADS, -1))
        q, k = rotate(heads(self.q(x)), rotation), rotate(heads(self.k(source)), source_rotation)
        v = heads(self.v(source))
        y = attend(*(t.to(v.dtype).transpose(1, 2) for t in (q, k, v)))
        return self.out(y.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList(norm() for _ in range(3))
        self.attention, self.cross = Attention(), Attention()
        self.gate, self.up, self.down = dense(DIM, HIDDEN), dense(DIM, HIDDEN), dense(HIDDEN, DIM)

    def forward(self, h, z, rotation, z_rotation, near):
        a = self.norms[0](h)
        h = h + self.attention(a, a, rotation, rotation, near)
        h = h + self.cross(self.norms[1](h), z, rotation, z_rotation, F.scaled_dot_product_attention)
        a = self.norms[2](h)
        return h + self.down(F.silu(self.gate(a)) * self.up(a))


class Model(nn.Module):
    def __init__(self, layers, latents, device):
        super().__init__()
        self.table = nn.Parameter(torch.randn(VOCAB, DIM) * 0.02)
        self.layers, self.norm = nn.ModuleList(Layer() for _ in range(layers)), norm()
        for p in self.layers.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        self.to(device)
        self.rotation = angles(torch.arange(TOKENS, device=device))
        self.z_rotation = angles(torch.arange(latents, device=device) * (TOKENS // (latents * layers)))
        if device == "cuda":
            from torch.nn.attention.flex_attention import create_block_mask, flex_attention

            is_near = lambda b, h, i, j: (i >= j) & (i - j < WINDOW)
            mask = create_block_mask(is_near, None, None, TOKENS, TOKENS, device=device)
            self.near = lambda q, k, v: flex_attention(q, k, v, block_mask=mask)
        else:
            back = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
            mask = (back >= 0) & (back < WINDOW)
            self.near = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def forward(self, tokens, targets, z):
        """The sum of the tokens' negative log-likelihoods; z [B, layers · latents, DIM]."""
        h = F.embedding(tokens, self.table)
        for layer, own in zip(self.layers, z.chunk(len(self.layers), dim=1)):
            h = layer(h, own, self.rotation, self.z_rotation, self.near)
        logits = F.linear(self.norm(h), self.table)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    args = parser.parse_args()
    on_gpu, (layers, latents, steps) = args.device == "cuda", PRESETS[args.preset]
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    model = Model(layers, latents, args.device)
    cost = torch.compile(model) if on_gpu else model
    cast = (lambda: torch.autocast("cuda", torch.bfloat16)) if on_gpu else contextlib.nullcontext
    sync = torch.cuda.synchronize if on_gpu else lambda: None
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=on_gpu)
    tokens, targets = torch.randint(0, VOCAB, (2, args.batch, TOKENS), device=args.device)
    zeros = torch.zeros(args.batch, layers * latents, DIM, device=args.device)
    draw = lambda mu, logvar: mu + (0.5 * logvar).exp() * torch.randn_like(mu)
    times = []
    for _ in range(ITERATIONS + 1):
        sync()
        begun = time.perf_counter()
        # Without this the compiled backward pass would also compute the weights' gradients.
        model.requires_grad_(False)
        mu, logvar = (zeros.clone().requires_grad_() for _ in range(2))
        fast = torch.optim.AdamW([mu, logvar], lr=0.3, fused=on_gpu)
        for _ in range(steps):
            with cast():
                nll = cost(tokens, targets, draw(mu, logvar))
            kl = 0.5 * (mu.square() + logvar.exp() - logvar - 1).sum()
            mu.grad, logvar.grad = torch.autograd.grad(nll.float() + kl, (mu, logvar))
            fast.step()
        sync()
        middle = time.perf_counter()
        model.requires_grad_(True)
        optimiser.zero_grad(set_to_none=True)
        with cast():
            nll = cost(tokens, targets, draw(mu.detach(), logvar.detach()))
        (nll / targets.numel()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        sync()
        times.append((time.perf_counter() - begun, (middle - begun) / steps))
    # The first iteration compiles.
    whole, step = (sorted(column)[ITERATIONS // 2] for column in zip(*times[1:]))
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    memory = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else ""
    print(
        f"PyTorch {torch.__version__}, {args.preset}, {millions:.2f} M parameters, batch {args.batch}: "
        f"{targets.numel() / whole:.0f} tokens/s, {1e3 * step:.2f} ms per fast step{memory}"
    )
    assert math.isfinite(nll.item())


if __name__ == "__main__":
    main()
