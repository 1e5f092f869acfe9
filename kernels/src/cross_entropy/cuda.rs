//! The head, a chunk of tokens at a time, by products of the library and launches of `kernel.cu`.

use super::LmHead;
use crate::cast;
use crate::cost::any_wanted;
use crate::launch::{THREADS, args, elements, product};
use engine::cuda::{Arg, Factor, Gpu, Grid, Module, Pointer};
use engine::{Buffer, Context, DType, Pass, Spec, Want};

pub static KERNELS: Module = Module::new("cross_entropy", include_str!("kernel.cu"));

/// Tokens whose logits exist at the same time on a GPU: 412 MB at V = 50,258 in bf16. With 512, whose logits stay in
/// L2, a step took a tenth longer: the products lose more than the passes between them gain. Half as many tokens if a
/// bf16 model's logits are f32.
pub const CHUNK: usize = 4096;

/// Vocabulary entries of one block: enough blocks for every GPU, few enough partial sums.
const SLAB: usize = 128;

/// The sizes, and how logits are stored.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dtype: DType,
    /// Type of the stored logits. bf16 is enough for gradients and for the losses of training, not for evaluation.
    pub logits: DType,
    pub tokens: usize,
    pub dim: usize,
    pub vocab: usize,
    /// Whether the gradient of the table is wanted.
    pub want_table: bool,
}

impl Shape {
    /// Of a pass with these inputs.
    pub fn new(hidden: Spec, table: Spec, pass: Pass) -> Self {
        Self {
            dtype: hidden.dtype,
            logits: if any_wanted(pass.wants()) { hidden.dtype } else { DType::F32 },
            tokens: hidden.shape.rows(),
            dim: hidden.shape.last(),
            vocab: table.shape.rows(),
            want_table: pass.gives(1),
        }
    }

    /// Tokens of a chunk.
    fn chunk(self) -> usize {
        self.tokens.min(if self.logits == self.dtype { CHUNK } else { CHUNK / 2 })
    }

    fn slabs(self) -> usize {
        self.vocab.div_ceil(SLAB)
    }

    /// Types and sizes of the parts of the working memory: logits [vocab, chunk], which become their gradients; the
    /// largest of them and sums [slabs, chunk]; the table's gradient so far [vocab, dim] in f32, if the table is bf16;
    /// exponentials times the table [chunk, dim] in f32; factors [2, chunk] for these and for the target's row.
    fn parts(self) -> [(DType, usize); 6] {
        let chunk = self.chunk();
        let table = if self.want_table && self.dtype != DType::F32 { self.vocab * self.dim } else { 0 };
        let partial = (DType::F32, self.slabs() * chunk);
        let float = |n| (DType::F32, n);
        [(self.logits, self.vocab * chunk), partial, partial, float(table), float(chunk * self.dim), float(2 * chunk)]
    }

    /// Numbers of f32 working memory; every part starts at a multiple of 256 bytes.
    pub fn scratch(self) -> usize {
        self.parts().iter().map(|(dtype, n)| (n * dtype.size()).next_multiple_of(256) / 4).sum()
    }

    fn split(self, memory: Pointer) -> Parts {
        let mut address = memory.address;
        let [logits, most, sums, d_table, summed, factors] = self.parts().map(|(dtype, n)| {
            let part = Pointer { address, dtype };
            address += (n * dtype.size()).next_multiple_of(256) as u64;
            part
        });
        Parts { logits, most, sums, d_table, summed, factors }
    }
}

/// The offsets of the parts of the working memory, in the order of [`Shape::parts`].
#[derive(Clone, Copy)]
struct Parts {
    logits: Pointer,
    most: Pointer,
    sums: Pointer,
    d_table: Pointer,
    summed: Pointer,
    factors: Pointer,
}

/// The op's inputs on a GPU, and its working memory.
pub struct Head<'a> {
    gpu: &'a dyn Gpu,
    head: LmHead,
    shape: Shape,
    hidden: &'a Buffer,
    table: &'a Buffer,
    targets: &'a Buffer,
    scale: &'a Buffer,
    parts: Parts,
}

/// The wanted gradients: the first two are `d_hidden` and `d_table`.
pub type Gradients<'a> = (&'a [Want], &'a [Buffer]);

/// Tokens `first..first + n`.
struct Chunk {
    first: usize,
    n: usize,
}

impl Chunk {
    /// The chunk's part of a buffer with `width` numbers for each token.
    fn of(&self, buffer: &Buffer, width: usize) -> Pointer {
        buffer.pointer().offset(self.first * width)
    }
}

impl<'a> Head<'a> {
    pub fn new(cx: &Context, gpu: &'a dyn Gpu, head: LmHead, ins: &[&'a Buffer], pass: Pass) -> Self {
        let &[hidden, table, targets, scale, ..] = ins else { unreachable!("four inputs") };
        let shape = Shape::new(hidden.spec(), table.spec(), pass);
        let parts = shape.split(cx.scratch_at(DType::F32, shape.scratch()));
        Self { gpu, head, shape, hidden, table, targets, scale, parts }
    }

    /// Loss, nll and lse.
    pub fn forward(&self, outs: &[Buffer]) {
        for chunk in self.chunks() {
            self.logits(&chunk);
            self.losses(&chunk, outs);
        }
        self.add_up(outs);
    }

    /// Gradients for the given gradient of the loss.
    pub fn vjp(&self, lse: &Buffer, d_loss: &Buffer, d_ins: Gradients) {
        for chunk in self.chunks() {
            self.logits(&chunk);
            self.backward(&chunk, lse, d_loss.into(), d_ins);
        }
        self.finish(d_ins);
    }

    /// Both passes, with 1 as the gradient of the loss.
    pub fn forward_vjp(&self, outs: &[Buffer], d_ins: Gradients) {
        for chunk in self.chunks() {
            self.logits(&chunk);
            if self.shape.want_table || self.each() == 1 || self.scores() == 1 {
                self.losses(&chunk, outs);
                self.backward(&chunk, &outs[2], Arg::Pointer(0), d_ins);
            } else {
                self.in_one_pass(&chunk, outs, d_ins);
            }
        }
        self.add_up(outs);
        self.finish(d_ins);
    }

    /// 1 if every token has its own factor, else 0.
    fn each(&self) -> usize {
        usize::from(self.scale.len() > 1)
    }

    /// 1 for the score entropy, 0 for the cross-entropy.
    fn scores(&self) -> usize {
        usize::from(self.head == LmHead::ScoreEntropy)
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<> {
        let (tokens, chunk) = (self.shape.tokens, self.shape.chunk());
        (0..tokens).step_by(chunk).map(move |first| Chunk { first, n: chunk.min(tokens - first) })
    }

    fn launch(&self, entry: &'static str, grid: Grid, args: &[Arg]) {
        self.gpu.launch(&KERNELS.kernel(entry, self.shape.logits), grid, args);
    }

    /// logits[v, n] = Σ_i table[v, i]·hidden[n, i]
    fn logits(&self, chunk: &Chunk) {
        let Shape { dim, vocab, .. } = self.shape;
        let factors = [Factor::Plain(self.table.into()), Factor::Transposed(chunk.of(self.hidden, dim))];
        product(self.gpu, [vocab, chunk.n, dim], factors, None, self.parts.logits);
    }

    /// A block for every [`SLAB`] entries of the vocabulary and 32 packs of tokens.
    fn slabs(&self, chunk: &Chunk) -> Grid {
        let blocks = [self.shape.slabs(), chunk.n.div_ceil(32 * self.pack(chunk)), 1];
        Grid::with_blocks(blocks, THREADS)
    }

    /// Tokens of a thread.
    fn pack(&self, chunk: &Chunk) -> usize {
        let wide = 16 / self.shape.logits.size();
        if chunk.n.is_multiple_of(wide) { wide } else { 1 }
    }

    fn losses(&self, chunk: &Chunk, outs: &[Buffer]) {
        let (vocab, n, slabs) = (self.shape.vocab, chunk.n, self.shape.slabs());
        let Parts { logits, most, sums, .. } = self.parts;
        let [targets, nll, lse] = [self.targets, &outs[1], &outs[2]].map(|b| chunk.of(b, 1));
        // The largest logits and the sums of every thread.
        let shared = 2 * DType::F32.size() * THREADS as usize * self.pack(chunk);
        self.launch("sum_slabs", self.slabs(chunk).shared(shared), args![logits, vocab, n, SLAB, most, sums]);
        let grid = Grid::new(n.div_ceil(32), 1024);
        self.launch("losses", grid, args![logits, targets, vocab, n, most, sums, slabs, nll, lse]);
    }

    /// Computes losses and the hidden states' gradient from the logits: see `exponentials` in `kernel.cu`.
    fn in_one_pass(&self, chunk: &Chunk, outs: &[Buffer], (wants, d_ins): Gradients) {
        let (Shape { dtype, dim, vocab, .. }, n) = (self.shape, chunk.n);
        let Parts { logits, sums, summed, factors, .. } = self.parts;
        let [targets, nll, lse] = [self.targets, &outs[1], &outs[2]].map(|b| chunk.of(b, 1));
        let (table, out) = (self.table.pointer(), chunk.of(&d_ins[0], dim));
        let shared = DType::F32.size() * THREADS as usize * self.pack(chunk);
        self.launch("exponentials", self.slabs(chunk).shared(shared), args![logits, targets, vocab, n, SLAB, sums]);
        let args = args![logits, targets, vocab, n, sums, self.shape.slabs(), self.scale, nll, lse, factors];
        self.launch("close_sums", Grid::new(n.div_ceil(32), 1024), args);
        product(self.gpu, [n, dim, vocab], [Factor::Transposed(logits), Factor::Plain(table)], None, summed);
        let args = args![summed, factors, table, targets, vocab, wants[0], out, n * dim, n, dim];
        self.launch("combine", elements(n * dim, dtype), args);
    }

    fn add_up(&self, outs: &[Buffer]) {
        let Shape { tokens, vocab, .. } = self.shape;
        let (each, scores) = (self.each(), self.scores());
        let args = args![&outs[1], &outs[2], self.targets, tokens, vocab, scores, self.scale, each, &outs[0]];
        self.launch("add_up", Grid::new(1, 1024), args);
    }

    /// Computes the gradients of the hidden states and the table from the logits.
    fn backward(&self, chunk: &Chunk, lse: &Buffer, d_loss: Arg, (wants, d_ins): Gradients) {
        let (Shape { dtype, dim, vocab, .. }, Parts { logits, d_table, .. }) = (self.shape, self.parts);
        let lse = if self.scores() == 1 { Arg::Pointer(0) } else { chunk.of(lse, 1).into() };
        let (targets, each) = (chunk.of(self.targets, 1), self.each());
        let scale = chunk.of(self.scale, each);
        let args = args![logits, targets, lse, scale, each, d_loss, vocab, chunk.n, SLAB];
        self.launch("gradient", self.slabs(chunk), args);
        if wants[0].is_wanted() {
            // d_hidden[n, i] = Σ_v d_logits[v, n]·table[v, i]
            let out = chunk.of(&d_ins[0], dim);
            let factors = [Factor::Transposed(logits), Factor::Plain(self.table.into())];
            product(self.gpu, [chunk.n, dim, vocab], factors, (wants[0] == Want::Add).then_some(out), out);
        }
        if wants[1].is_wanted() {
            // d_table[v, i] = Σ_n d_logits[v, n]·hidden[n, i], summed over the chunks in f32
            let apart = dtype != DType::F32;
            let out = if apart { d_table } else { d_ins[1].pointer() };
            let first = chunk.first == 0 && (apart || wants[1] == Want::Write);
            let factors = [Factor::Plain(logits), Factor::Plain(chunk.of(self.hidden, dim))];
            product(self.gpu, [vocab, dim, chunk.n], factors, (!first).then_some(out), out);
        }
    }

    fn finish(&self, (wants, d_ins): Gradients) {
        if wants[1].is_wanted() && self.shape.dtype != DType::F32 {
            cast::launch(self.gpu, self.parts.d_table, wants[1], d_ins[1].pointer(), d_ins[1].len());
        }
    }
}
