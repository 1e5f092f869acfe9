use crate::{DType, Element, Shape, Spec};
use std::fmt;

/// A contiguous tensor: memory, element type and shape. Host memory is 64-byte aligned and starts as zeros.
///
/// A buffer may be larger than what it currently holds: [`respec`](Self::respec) gives the memory another meaning, which
/// is how a plan's slots serve many values without allocating.
#[derive(Default)]
pub struct Buffer {
    spec: Option<Spec>,
    bytes: Vec<u8>,
    /// Where the aligned part of `bytes` begins.
    offset: usize,
}

const ALIGN: usize = 64;

impl Buffer {
    /// Zeros on the host.
    pub fn new(spec: Spec) -> Self {
        let mut buffer = Self::with_capacity(spec.bytes());
        buffer.spec = Some(spec);
        buffer
    }

    /// No memory at all: what stands where an op must not look.
    pub const fn empty() -> Self {
        Self { spec: None, bytes: Vec::new(), offset: 0 }
    }

    /// Memory for `capacity` bytes that holds nothing yet.
    pub fn with_capacity(capacity: usize) -> Self {
        let bytes = vec![0; capacity + ALIGN - 1];
        let offset = bytes.as_ptr().align_offset(ALIGN);
        Self { spec: None, bytes, offset }
    }

    /// A host buffer with the given elements.
    ///
    /// # Panics
    /// If `dims` and `data` disagree in size.
    pub fn from_slice<T: Element>(dims: &[usize], data: &[T]) -> Self {
        let mut buffer = Self::new(Spec::new(T::DTYPE, dims));
        buffer.as_mut_slice::<T>().copy_from_slice(data);
        buffer
    }

    /// A host buffer of `dtype` with the given numbers, rounded to it.
    ///
    /// # Panics
    /// If `dims` and `data` disagree in size.
    pub fn from_f64(dtype: DType, dims: &[usize], data: &[f64]) -> Self {
        let mut buffer = Self::new(Spec::new(dtype, dims));
        buffer.set_f64(data);
        buffer
    }

    /// Overwrites the elements with `data`, rounded to the element type.
    ///
    /// # Panics
    /// If the sizes disagree.
    pub fn set_f64(&mut self, data: &[f64]) {
        fn fill<T: Element>(out: &mut [T], data: &[f64], cast: impl Fn(f64) -> T) {
            assert_eq!(out.len(), data.len(), "number of elements");
            out.iter_mut().zip(data).for_each(|(o, &x)| *o = cast(x));
        }
        match self.dtype() {
            DType::F32 => fill(self.as_mut_slice(), data, |x| x as f32),
            DType::F64 => fill(self.as_mut_slice(), data, |x| x),
            DType::Bf16 => fill(self.as_mut_slice(), data, half::bf16::from_f64),
            DType::I32 => fill(self.as_mut_slice(), data, |x| x as i32),
        }
    }

    /// The elements as f64, exactly.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.dtype() {
            DType::F32 => self.as_slice::<f32>().iter().map(|&x| f64::from(x)).collect(),
            DType::F64 => self.as_slice::<f64>().to_vec(),
            DType::Bf16 => self.as_slice::<half::bf16>().iter().map(|x| x.to_f64()).collect(),
            DType::I32 => self.as_slice::<i32>().iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// What the buffer holds now.
    ///
    /// # Panics
    /// If it holds nothing.
    pub fn spec(&self) -> Spec {
        self.spec.expect("the buffer holds a value")
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.spec().dtype
    }

    /// Shape.
    pub fn shape(&self) -> Shape {
        self.spec().shape
    }

    /// Number of elements; zero when it holds nothing.
    pub fn len(&self) -> usize {
        self.spec.map_or(0, |s| s.shape.numel())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit without allocating.
    pub fn capacity(&self) -> usize {
        self.bytes.len().saturating_sub(ALIGN - 1)
    }

    /// Gives the memory another meaning; its contents are then unspecified.
    ///
    /// # Panics
    /// If the value does not fit.
    pub fn respec(&mut self, spec: Spec) {
        assert!(spec.bytes() <= self.capacity(), "{spec} does not fit into {} bytes", self.capacity());
        self.spec = Some(spec);
    }

    /// The elements.
    ///
    /// # Panics
    /// If `T` is not the element type.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        let spec = self.expect::<T>();
        if spec.bytes() == 0 {
            // A buffer without memory is aligned to nothing.
            return &[];
        }
        bytemuck::cast_slice(&self.bytes[self.offset..self.offset + spec.bytes()])
    }

    /// The elements, to be changed.
    ///
    /// # Panics
    /// If `T` is not the element type.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        let spec = self.expect::<T>();
        if spec.bytes() == 0 {
            return &mut [];
        }
        bytemuck::cast_slice_mut(&mut self.bytes[self.offset..self.offset + spec.bytes()])
    }

    /// The elements as raw bytes, for hashing, saving and bitwise comparison.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.offset..self.offset + self.spec().bytes()]
    }

    /// Copies the elements of a buffer of the same spec.
    ///
    /// # Panics
    /// If the specs differ.
    pub fn copy_from(&mut self, other: &Buffer) {
        assert_eq!(self.spec(), other.spec(), "copy between unlike buffers");
        let bytes = self.spec().bytes();
        self.bytes[self.offset..self.offset + bytes].copy_from_slice(other.as_bytes());
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) {
        let bytes = self.spec().bytes();
        self.bytes[self.offset..self.offset + bytes].fill(0);
    }

    fn expect<T: Element>(&self) -> Spec {
        let spec = self.spec();
        assert_eq!(spec.dtype, T::DTYPE, "element type of {spec}");
        spec
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        match self.spec {
            None => Self::with_capacity(self.capacity()),
            Some(spec) => {
                let mut copy = Self::new(spec);
                copy.copy_from(self);
                copy
            }
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.spec {
            Some(spec) => write!(f, "Buffer({spec})"),
            None => write!(f, "Buffer(empty, {} bytes)", self.capacity()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zeroed_and_reusable() {
        let mut b = Buffer::new(Spec::new(DType::F64, &[3, 5]));
        assert!(b.as_slice::<f64>().iter().all(|&x| x == 0.0));
        assert_eq!(b.as_bytes().as_ptr() as usize % ALIGN, 0);
        b.respec(Spec::new(DType::F32, &[7]));
        b.set_f64(&[1.5; 7]);
        assert_eq!(b.to_f64(), [1.5; 7]);
        let moved = b;
        assert_eq!(moved.as_bytes().as_ptr() as usize % ALIGN, 0);
        assert_eq!(moved.clone().as_slice::<f32>(), &[1.5f32; 7]);
    }

    #[test]
    fn nothing_fits_into_no_memory() {
        let mut b = Buffer::empty();
        b.respec(Spec::new(DType::F64, &[0]));
        assert!(b.as_slice::<f64>().is_empty() && b.as_mut_slice::<f64>().is_empty());
    }

    #[test]
    #[should_panic(expected = "does not fit")]
    fn a_value_that_does_not_fit_is_a_bug() {
        Buffer::with_capacity(8).respec(Spec::new(DType::F64, &[3]));
    }

    #[test]
    #[should_panic(expected = "element type")]
    fn the_wrong_type_is_a_bug() {
        let _ = Buffer::new(Spec::new(DType::F64, &[2])).as_slice::<f32>();
    }
}
