//! The head, a chunk of tokens at a time, by products of the library and launches of `kernel.cu`.

use crate::cast;
use crate::launch::{THREADS, elements};
use engine::cuda::{Arg, Factor, Gpu, Grid, Module, Pointer, Product};
use engine::{Buffer, DType, Want};

pub static KERNELS: Module = Module::new("cross_entropy", include_str!("kernel.cu"));

/// Tokens whose logits exist at the same time on a GPU: at V = 50,258 in bf16 412 MB. With 512, whose logits would stay in
/// the second level cache, a step took a tenth longer: the products lose more than the passes between them gain. Half as
/// many where a bf16 model's logits are in f32.
pub const CHUNK: usize = 4096;

/// Entries of the vocabulary of one block: enough blocks for every GPU, few enough partial sums.
const SLAB: usize = 128;

/// What the op is given.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// [tokens, dim]
    pub hidden: &'a Buffer,
    /// [vocab, dim]
    pub table: &'a Buffer,
    /// [tokens]
    pub targets: &'a Buffer,
    /// [1]
    pub scale: &'a Buffer,
}

/// What the forward pass gives.
pub struct Outputs<'a> {
    /// [1]
    pub loss: &'a mut Buffer,
    /// [tokens]
    pub nll: &'a mut Buffer,
    /// [tokens]
    pub lse: &'a mut Buffer,
}

/// The gradients, empty where nobody wants them.
pub struct Gradients<'a> {
    /// [tokens, dim]
    pub d_hidden: (Want, &'a mut Buffer),
    /// [vocab, dim]
    pub d_table: (Want, &'a mut Buffer),
}

/// Sizes and the working memory.
#[derive(Clone, Copy)]
pub struct Shape {
    pub dtype: DType,
    /// What logits are stored as. From bf16 come gradients, and losses along the way; its eight bits are not enough for
    /// what is said about a model, whose logits are larger than one.
    pub logits: DType,
    pub tokens: usize,
    pub dim: usize,
    pub vocab: usize,
    /// Whether the gradient of the table is wanted.
    pub want_table: bool,
}

/// The parts of the working memory.
struct Parts {
    /// [vocab, chunk]: the logits, then their gradients
    logits: Pointer,
    /// [slabs, chunk]
    most: Pointer,
    /// [slabs, chunk]
    sums: Pointer,
    /// [vocab, dim] in f32: the table's gradient so far, where the table itself is stored in less
    d_table: Pointer,
    /// [chunk, dim] in f32: exponentials times the table
    summed: Pointer,
    /// [2, chunk]: what these and the target's row are multiplied with
    factors: Pointer,
}

impl Shape {
    /// Tokens of a chunk.
    fn chunk(self) -> usize {
        self.tokens.min(if self.logits == self.dtype { CHUNK } else { CHUNK / 2 })
    }

    fn slabs(self) -> usize {
        self.vocab.div_ceil(SLAB)
    }

    /// Types and numbers of the parts.
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

/// Losses.
pub fn forward(gpu: &dyn Gpu, shape: Shape, ins: Inputs, memory: Pointer, outs: Outputs) {
    let head = Head { gpu, shape, ins, parts: shape.split(memory) };
    for chunk in head.chunks() {
        head.logits(&chunk);
        head.losses(&chunk, &outs);
    }
    head.add_up(outs);
}

/// Gradients for that of the loss.
pub fn vjp(gpu: &dyn Gpu, shape: Shape, ins: Inputs, memory: Pointer, lse: &Buffer, d_loss: &Buffer, d_ins: Gradients) {
    let head = Head { gpu, shape, ins, parts: shape.split(memory) };
    for chunk in head.chunks() {
        head.logits(&chunk);
        head.backward(&chunk, lse, d_loss.into(), &d_ins);
    }
    head.finish(d_ins);
}

/// Both, for 1 as the gradient of the loss.
pub fn forward_vjp(gpu: &dyn Gpu, shape: Shape, ins: Inputs, memory: Pointer, outs: Outputs, d_ins: Gradients) {
    let head = Head { gpu, shape, ins, parts: shape.split(memory) };
    for chunk in head.chunks() {
        head.logits(&chunk);
        if d_ins.d_table.0.is_wanted() {
            head.losses(&chunk, &outs);
            head.backward(&chunk, outs.lse, Arg::Pointer(0), &d_ins);
        } else {
            head.in_one_pass(&chunk, &outs, &d_ins.d_hidden);
        }
    }
    head.add_up(outs);
    head.finish(d_ins);
}

struct Head<'a> {
    gpu: &'a dyn Gpu,
    shape: Shape,
    ins: Inputs<'a>,
    parts: Parts,
}

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

impl Head<'_> {
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
        self.gpu.product(&Product {
            rows: vocab,
            cols: chunk.n,
            inner: dim,
            a: Factor::Plain(self.ins.table.into()),
            b: Factor::Transposed(chunk.of(self.ins.hidden, dim)),
            c: None,
            out: self.parts.logits,
        });
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

    fn losses(&self, chunk: &Chunk, outs: &Outputs) {
        let (Shape { vocab, .. }, Parts { logits, most, sums, .. }) = (self.shape, &self.parts);
        let [most, sums] = [*most, *sums].map(Arg::from);
        let sizes = [vocab, chunk.n].map(Arg::int);
        // The largest logits and the sums of every thread.
        let shared = 2 * DType::F32.size() * THREADS as usize * self.pack(chunk);
        self.launch(
            "sum_slabs",
            self.slabs(chunk).shared(shared),
            &[&[(*logits).into()][..], &sizes, &[Arg::int(SLAB), most, sums]].concat(),
        );
        let [targets, nll, lse] = [self.ins.targets, outs.nll, outs.lse].map(|b| chunk.of(b, 1).into());
        self.launch(
            "losses",
            Grid::new(chunk.n.div_ceil(32), 1024),
            &[&[(*logits).into(), targets][..], &sizes, &[most, sums, Arg::int(self.shape.slabs()), nll, lse]].concat(),
        );
    }

    /// From the logits to losses and the hidden states' gradient: see `exponentials` in `kernel.cu`.
    fn in_one_pass(&self, chunk: &Chunk, outs: &Outputs, (want, d_hidden): &(Want, &mut Buffer)) {
        let Shape { dtype, dim, vocab, .. } = self.shape;
        let Parts { logits, sums, summed, factors, .. } = self.parts;
        let [targets, nll, lse] = [self.ins.targets, outs.nll, outs.lse].map(|b| chunk.of(b, 1).into());
        let (table, out) = (self.ins.table.pointer(), chunk.of(d_hidden, dim));
        let sizes = [vocab, chunk.n].map(Arg::int);
        let shared = DType::F32.size() * THREADS as usize * self.pack(chunk);
        self.launch(
            "exponentials",
            self.slabs(chunk).shared(shared),
            &[&[logits.into(), targets][..], &sizes, &[Arg::int(SLAB), sums.into()]].concat(),
        );
        let more = [sums.into(), Arg::int(self.shape.slabs()), self.ins.scale.into(), nll, lse, factors.into()];
        let grid = Grid::new(chunk.n.div_ceil(32), 1024);
        self.launch("close_sums", grid, &[&[logits.into(), targets][..], &sizes, &more].concat());
        self.gpu.product(&Product {
            rows: chunk.n,
            cols: dim,
            inner: vocab,
            a: Factor::Transposed(logits),
            b: Factor::Plain(table),
            c: None,
            out: summed,
        });
        let inputs = [summed.into(), factors.into(), table.into(), targets, Arg::int(vocab)];
        let numbers = [chunk.n * dim, chunk.n, dim].map(Arg::int);
        self.launch(
            "combine",
            elements(chunk.n * dim, dtype),
            &[&inputs[..], &[(*want).into(), out.into()], &numbers].concat(),
        );
    }

    fn add_up(&self, outs: Outputs) {
        let n = Arg::int(self.shape.tokens);
        let args = [Arg::from(&*outs.nll), n, self.ins.scale.into(), outs.loss.into()];
        self.launch("add_up", Grid::new(1, 1024), &args);
    }

    /// From the logits to the gradients of what they were made of.
    fn backward(&self, chunk: &Chunk, lse: &Buffer, d_loss: Arg, d_ins: &Gradients) {
        let (Shape { dtype, dim, vocab, .. }, logits) = (self.shape, self.parts.logits);
        let [targets, lse] = [self.ins.targets, lse].map(|b| chunk.of(b, 1).into());
        self.launch(
            "gradient",
            self.slabs(chunk),
            &[&[logits.into(), targets, lse, self.ins.scale.into(), d_loss][..], &[vocab, chunk.n, SLAB].map(Arg::int)]
                .concat(),
        );
        let (want, d_hidden) = &d_ins.d_hidden;
        if want.is_wanted() {
            // d_hidden[n, i] = Σ_v d_logits[v, n]·table[v, i]
            let out = chunk.of(d_hidden, dim);
            self.gpu.product(&Product {
                rows: chunk.n,
                cols: dim,
                inner: vocab,
                a: Factor::Transposed(logits),
                b: Factor::Plain(self.ins.table.into()),
                c: (*want == Want::Add).then_some(out),
                out,
            });
        }
        let (want, d_table) = &d_ins.d_table;
        if want.is_wanted() {
            // d_table[v, i] = Σ_n d_logits[v, n]·hidden[n, i], summed over the chunks in f32
            let apart = dtype != DType::F32;
            let out = if apart { self.parts.d_table } else { d_table.pointer() };
            let first = chunk.first == 0 && (apart || *want == Want::Write);
            self.gpu.product(&Product {
                rows: vocab,
                cols: dim,
                inner: chunk.n,
                a: Factor::Plain(logits),
                b: Factor::Plain(chunk.of(self.ins.hidden, dim)),
                c: (!first).then_some(out),
                out,
            });
        }
    }

    fn finish(&self, d_ins: Gradients) {
        let (want, d_table) = d_ins.d_table;
        if want.is_wanted() && self.shape.dtype != DType::F32 {
            cast::cuda::convert(self.gpu, self.parts.d_table, want, d_table.into(), d_table.len());
        }
    }
}
