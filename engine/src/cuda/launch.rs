use crate::{Buffer, DType, Want};

/// The kernels of one op: a `.cu` file, compiled for f32 and for bf16 storage.
#[derive(Debug)]
pub struct Module {
    /// The op's name; unique.
    pub name: &'static str,
    /// Text of the file.
    pub source: &'static str,
    /// Values of the constant `SIZE` that it is compiled for, e.g. tile widths; empty if it has no such constant.
    pub sizes: &'static [usize],
}

impl Module {
    /// A file without a constant `SIZE`.
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, sizes: &[] }
    }

    /// The same file, compiled for each of these values of `SIZE`.
    #[must_use]
    pub const fn with_sizes(mut self, sizes: &'static [usize]) -> Self {
        self.sizes = sizes;
        self
    }

    /// The entry point `entry` for tensors that are stored as `dtype`, f32 or bf16.
    pub fn kernel(&'static self, entry: &'static str, dtype: DType) -> Kernel {
        assert!(matches!(dtype, DType::F32 | DType::Bf16), "kernels are compiled for f32 and bf16, not {dtype}");
        Kernel { module: self, entry, variant: Variant { dtype, size: 0 } }
    }

    /// All compilations of the file.
    pub fn variants(&self) -> impl Iterator<Item = Variant> + '_ {
        let sizes = if self.sizes.is_empty() { &[0] } else { self.sizes };
        [DType::F32, DType::Bf16].into_iter().flat_map(|dtype| sizes.iter().map(move |&size| Variant { dtype, size }))
    }

    /// Names of the entry points, in the file's order.
    pub fn entries(&self) -> impl Iterator<Item = &'static str> + '_ {
        let text: &'static str = self.source;
        text.split("extern \"C\" __global__ void ").skip(1).map(|rest| {
            // `__launch_bounds__(256) name(`: the name is before the parenthesis of the parameters.
            let rest = match rest.strip_prefix("__launch_bounds__(") {
                Some(bounds) => bounds.split_once(')').map_or("", |(_, rest)| rest),
                None => rest,
            };
            rest.split('(').next().unwrap_or("").trim()
        })
    }
}

/// One compilation of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The type `T` of the file.
    pub dtype: DType,
    /// The constant `SIZE`; 0 if the file has none.
    pub size: usize,
}

impl Variant {
    /// Its preprocessor definitions.
    pub fn defines(&self) -> Vec<String> {
        let storage = if self.dtype == DType::Bf16 { "bf16" } else { "float" };
        let mut defines = vec![format!("STORAGE={storage}")];
        if self.size > 0 {
            defines.push(format!("SIZE={}", self.size));
        }
        defines
    }
}

/// One entry point of a module.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// The file.
    pub module: &'static Module,
    /// The function.
    pub entry: &'static str,
    /// Which compilation of the file.
    pub variant: Variant,
}

impl Kernel {
    /// The kernel compiled for this value of `SIZE`, which the module must list.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        assert!(self.module.sizes.contains(&size), "{} is not compiled for SIZE = {size}", self.module.name);
        self.variant.size = size;
        self
    }
}

/// The number of threads that run a kernel, and their shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x, y and z. Up to 2³¹ − 1 in x and 65,535 in y and z.
    pub blocks: [u32; 3],
    /// Threads of a block, up to 1,024.
    pub threads: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared: u32,
}

impl Grid {
    /// A row of blocks, fewer than 2³¹.
    pub fn new(blocks: usize, threads: u32) -> Self {
        Self::with_blocks([blocks, 1, 1], threads)
    }

    /// Blocks in x, y and z.
    ///
    /// # Panics
    /// If there are more than the hardware supports.
    pub fn with_blocks(blocks: [usize; 3], threads: u32) -> Self {
        assert!(blocks[0] < 1 << 31 && blocks[1] < 1 << 16 && blocks[2] < 1 << 16, "{blocks:?} blocks");
        assert!((1..=1024).contains(&threads), "{threads} threads in a block");
        Self { blocks: blocks.map(|n| n as u32), threads, shared: 0 }
    }

    /// A thread for each of `n` elements, in fewer than 2³¹ blocks.
    pub fn covering(n: usize, threads: u32) -> Self {
        Self::new(n.div_ceil(threads as usize), threads)
    }

    /// With `bytes` bytes of dynamic shared memory per block.
    #[must_use]
    pub fn shared(mut self, bytes: usize) -> Self {
        self.shared = bytes as u32;
        self
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.blocks.contains(&0)
    }
}

/// The place of an element in the device's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Address; zero for null.
    pub address: u64,
    /// Element type.
    pub dtype: DType,
}

impl Pointer {
    /// The element `elements` further on.
    #[must_use]
    pub fn offset(self, elements: usize) -> Self {
        Self { address: self.address + (elements * self.dtype.size()) as u64, ..self }
    }

    /// The same place as elements of another type.
    #[must_use]
    pub fn cast(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arg {
    /// A pointer.
    Pointer(u64),
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `unsigned long long`.
    U64(u64),
    /// `float`.
    F32(f32),
    /// `double`.
    F64(f64),
}

impl Arg {
    /// The value in the lowest bytes, as the device reads it, and its size in bytes.
    pub fn bits(&self) -> (u64, usize) {
        match *self {
            Self::Pointer(x) | Self::U64(x) => (x, 8),
            Self::F64(x) => (x.to_bits(), 8),
            Self::I32(x) => (u64::from(x as u32), 4),
            Self::U32(x) => (u64::from(x), 4),
            Self::F32(x) => (u64::from(x.to_bits()), 4),
        }
    }
}

impl From<Pointer> for Arg {
    fn from(pointer: Pointer) -> Self {
        Self::Pointer(pointer.address)
    }
}

macro_rules! from_buffer {
    ($($to:ty, $from:ty;)*) => { $(impl From<$from> for $to {
        /// The first element; null for an empty buffer.
        fn from(buffer: $from) -> Self {
            buffer.pointer().into()
        }
    })* };
}

from_buffer!(Pointer, &Buffer; Pointer, &mut Buffer; Arg, &Buffer; Arg, &mut Buffer;);

impl From<usize> for Arg {
    /// A size as `int`, below 2³¹: kernels count the elements of a tensor in `int`.
    fn from(n: usize) -> Self {
        Self::I32(i32::try_from(n).unwrap_or_else(|_| panic!("{n} elements do not fit into a kernel's int")))
    }
}

impl From<Want> for Arg {
    /// `SKIP`, `WRITE` or `ADD` of `common.cuh`.
    fn from(want: Want) -> Self {
        Self::I32(match want {
            Want::Skip => 0,
            Want::Write => 1,
            Want::Add => 2,
        })
    }
}
