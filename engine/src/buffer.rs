use crate::cuda::{Gpu, Pointer};
use crate::memory::{Host, Memory};
use crate::{DType, Device, Element, Result, Shape, Spec};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A contiguous tensor: memory on the host or on a device, element type and shape. Memory starts as zeros; host memory is
/// 64-byte aligned, from 32 KiB on to a page.
///
/// A buffer may be larger than its value. [`respec`](Self::respec) changes type and shape, so that a plan's slots hold
/// many values without allocation.
///
/// Slices and bytes exist for host memory only. [`write`](Self::write), [`set_f64`](Self::set_f64),
/// [`copy_from`](Self::copy_from) and [`clear`](Self::clear) work on host and device memory. On a device that has
/// failed they do nothing; [`on_host`](Self::on_host) and [`read_f64`](Self::read_f64) return its error.
///
/// # Errors
/// Constructors fail if the device lacks the memory.
///
/// # Panics
/// If the type or number of elements differs from the buffer's, if the buffer has no value, or if the host reads memory
/// of a device.
///
/// ```
/// use engine::{Buffer, DType};
///
/// let mut x = Buffer::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// x.as_mut_slice::<f32>()[0] = 0.1;
/// assert_eq!((x.spec().to_string(), x.shape().rows(), x.shape().last()), ("f32[2, 3]".into(), 2, 3));
/// // Conversion goes through f64. bf16 has eight bits of precision.
/// let rounded = Buffer::from_f64(DType::Bf16, &[2, 3], &x.to_f64());
/// assert_eq!(rounded.to_f64()[..2], [0.10009765625, 2.0]);
/// ```
#[derive(Default)]
pub struct Buffer {
    spec: Option<Spec>,
    place: Place,
}

enum Place {
    Host(Host),
    Device(Memory),
    /// A placeholder for this many bytes that did not fit on the device: reads as zeros, ignores writes, cannot be
    /// computed with.
    Missing(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Host(Host::EMPTY)
    }
}

impl Buffer {
    /// Zeros on the host.
    pub fn new(spec: Spec) -> Self {
        Self { spec: Some(spec), place: Place::Host(Host::new(spec.bytes())) }
    }

    /// Zeros on `device`.
    pub fn new_on(device: &Device, spec: Spec) -> Result<Self> {
        Ok(Self { spec: Some(spec), ..Self::with_capacity_on(device, spec.bytes())? })
    }

    /// A buffer without memory, for an argument that an op must not read.
    pub const fn empty() -> Self {
        Self { spec: None, place: Place::Host(Host::EMPTY) }
    }

    /// Memory for `capacity` bytes on `device`, without a value.
    pub fn with_capacity_on(device: &Device, capacity: usize) -> Result<Self> {
        let place = match device {
            Device::Cpu(_) => Place::Host(Host::try_new(capacity)?),
            Device::Cuda(gpu) => {
                let address = if capacity == 0 { 0 } else { gpu.alloc(capacity)? };
                Place::Device(Memory { gpu: gpu.clone(), address, bytes: capacity })
            }
        };
        Ok(Self { spec: None, place })
    }

    /// A placeholder for `capacity` bytes that did not fit on a device. It lets planning finish, so that the error can
    /// name the memory needed. It reads as zeros, ignores writes and cannot be computed with.
    pub const fn missing(capacity: usize) -> Self {
        Self { spec: None, place: Place::Missing(capacity) }
    }

    /// A copy on `device`.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut copy = Self::new_on(device, self.spec())?;
        copy.copy_from(self);
        Ok(copy)
    }

    /// The tensor in host memory: itself, or a copy.
    ///
    /// # Errors
    /// If the device has failed at any earlier time.
    pub fn on_host(&self) -> Result<Cow<'_, Self>> {
        let copy = || self.spec.map_or_else(Self::empty, Self::new);
        match &self.place {
            Place::Host(_) => Ok(Cow::Borrowed(self)),
            Place::Missing(_) => Ok(Cow::Owned(copy())),
            Place::Device(memory) => {
                let mut copy = copy();
                if !self.is_empty() {
                    memory.gpu.read(memory.address, copy.bytes_mut())?;
                }
                Ok(Cow::Owned(copy))
            }
        }
    }

    /// The elements as f64, exactly, from host or device memory.
    ///
    /// # Errors
    /// As [`on_host`](Self::on_host).
    pub fn read_f64(&self) -> Result<Vec<f64>> {
        Ok(self.on_host()?.to_f64())
    }

    /// A host buffer with the given elements.
    pub fn from_slice<T: Element>(dims: &[usize], data: &[T]) -> Self {
        let mut buffer = Self::new(Spec::new(T::DTYPE, dims));
        buffer.as_mut_slice::<T>().copy_from_slice(data);
        buffer
    }

    /// A host buffer of `dtype` with the given numbers, rounded to it.
    pub fn from_f64(dtype: DType, dims: &[usize], data: &[f64]) -> Self {
        let mut buffer = Self::new(Spec::new(dtype, dims));
        buffer.set_f64(data);
        buffer
    }

    /// Overwrites the elements with `data`, rounded to the element type.
    pub fn set_f64(&mut self, data: &[f64]) {
        fn fill<T: Element>(out: &mut [T], data: &[f64], cast: impl Fn(f64) -> T) {
            assert_eq!(out.len(), data.len(), "number of elements");
            out.iter_mut().zip(data).for_each(|(o, &x)| *o = cast(x));
        }
        let spec = self.spec();
        if !matches!(self.place, Place::Host(_)) {
            return self.copy_from(&Self::from_f64(spec.dtype, spec.shape.dims(), data));
        }
        match spec.dtype {
            DType::F32 => fill(self.as_mut_slice(), data, |x| x as f32),
            DType::F64 => fill(self.as_mut_slice(), data, |x| x),
            DType::Bf16 => fill(self.as_mut_slice(), data, half::bf16::from_f64),
            DType::I32 => fill(self.as_mut_slice(), data, |x| x as i32),
        }
    }

    /// The elements of host memory as f64, exactly; [`read_f64`](Self::read_f64) also reads device memory.
    pub fn to_f64(&self) -> Vec<f64> {
        match self.dtype() {
            DType::F32 => self.as_slice::<f32>().iter().map(|&x| f64::from(x)).collect(),
            DType::F64 => self.as_slice::<f64>().to_vec(),
            DType::Bf16 => self.as_slice::<half::bf16>().iter().map(|x| x.to_f64()).collect(),
            DType::I32 => self.as_slice::<i32>().iter().map(|&x| f64::from(x)).collect(),
        }
    }

    /// Type and shape of the value.
    pub fn spec(&self) -> Spec {
        self.spec.expect("no value: an op gets only what it lists in `reads`, and no gradient to skip")
    }

    /// Whether it holds a value of this type and shape.
    pub fn has(&self, spec: Spec) -> bool {
        self.spec == Some(spec)
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.spec().dtype
    }

    /// Shape.
    pub fn shape(&self) -> Shape {
        self.spec().shape
    }

    /// Number of elements; zero without a value.
    pub fn len(&self) -> usize {
        self.spec.map_or(0, |s| s.shape.numel())
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit without allocating.
    pub fn capacity(&self) -> usize {
        match &self.place {
            Place::Host(host) => host.capacity,
            Place::Device(memory) => memory.bytes,
            Place::Missing(capacity) => *capacity,
        }
    }

    /// Gives the memory another type and shape. The elements are then unspecified.
    ///
    /// # Panics
    /// If the value does not fit.
    pub fn respec(&mut self, spec: Spec) {
        assert!(spec.bytes() <= self.capacity(), "{spec} does not fit into {} bytes", self.capacity());
        self.spec = Some(spec);
    }

    /// The elements of host memory.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        let spec = self.expect::<T>();
        if spec.bytes() == 0 {
            // A buffer without memory is aligned to nothing.
            return &[];
        }
        bytemuck::cast_slice(&self.host()[..spec.bytes()])
    }

    /// The elements of host memory, mutable.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        if self.expect::<T>().bytes() == 0 {
            return &mut [];
        }
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// The elements of host memory as raw bytes, for hashing, saving and bitwise comparison.
    pub fn as_bytes(&self) -> &[u8] {
        &self.host()[..self.spec().bytes()]
    }

    /// Overwrites the elements.
    pub fn write<T: Element>(&mut self, data: &[T]) {
        self.expect::<T>();
        assert_eq!(self.len(), data.len(), "number of elements");
        match &self.place {
            Place::Host(_) => self.as_mut_slice().copy_from_slice(data),
            Place::Device(memory) if !data.is_empty() => memory.gpu.write(memory.address, bytemuck::cast_slice(data)),
            _ => {}
        }
    }

    /// Copies the elements of a buffer of the same spec, from the host or within one device.
    ///
    /// # Panics
    /// If the specs differ, or if the elements are on a device and this buffer is not: see [`on_host`](Self::on_host).
    pub fn copy_from(&mut self, other: &Self) {
        assert_eq!(self.spec(), other.spec(), "a copy needs buffers of the same type and shape");
        match (&self.place, &other.place) {
            (Place::Missing(_), _) | (_, Place::Missing(_)) => {}
            (Place::Host(_), _) => self.bytes_mut().copy_from_slice(other.as_bytes()),
            _ if self.is_empty() => {}
            (Place::Device(to), Place::Device(from)) => to.gpu.copy(from.address, to.address, self.spec().bytes()),
            (Place::Device(to), _) => to.gpu.write(to.address, other.as_bytes()),
        }
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) {
        match &self.place {
            Place::Host(_) => self.bytes_mut().fill(0),
            Place::Device(memory) if !self.is_empty() => memory.gpu.clear(memory.address, self.spec().bytes()),
            _ => {}
        }
    }

    /// The device address and type of the first element; null for an empty buffer.
    ///
    /// # Panics
    /// If a buffer with elements is not in a device's memory.
    pub fn pointer(&self) -> Pointer {
        let Some(spec) = self.spec else { return Pointer { address: 0, dtype: DType::F32 } };
        let address = self.address();
        assert!(address != 0 || self.is_empty(), "a kernel got {spec} that is not on its device");
        Pointer { address, dtype: spec.dtype }
    }

    /// The device address of the memory, with or without a value; zero in host memory.
    pub fn address(&self) -> u64 {
        if let Place::Device(memory) = &self.place { memory.address } else { 0 }
    }

    /// The GPU whose memory it is.
    pub(crate) fn gpu(&self) -> Option<&Arc<dyn Gpu>> {
        if let Place::Device(memory) = &self.place { Some(&memory.gpu) } else { None }
    }

    fn host(&self) -> &[u8] {
        match &self.place {
            Place::Host(host) => host.bytes(),
            _ => panic!("the host cannot look into {self:?}: copy it to the host first"),
        }
    }

    /// The bytes of the value in host memory.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let spec = self.spec();
        match &mut self.place {
            Place::Host(host) => &mut host.bytes_mut()[..spec.bytes()],
            _ => panic!("the host cannot look into {spec}: copy it to the host first"),
        }
    }

    fn expect<T: Element>(&self) -> Spec {
        let spec = self.spec();
        assert_eq!(spec.dtype, T::DTYPE, "element type of {spec}");
        spec
    }
}

impl Clone for Buffer {
    /// A copy of host memory.
    ///
    /// # Panics
    /// If the memory is a device's: see [`to_device`](Self::to_device).
    fn clone(&self) -> Self {
        let Some(spec) = self.spec else { return Self { spec: None, place: Place::Host(Host::new(self.capacity())) } };
        let mut copy = Self::new(spec);
        copy.copy_from(self);
        copy
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.address() == 0 { "" } else { " on a device" };
        match self.spec {
            Some(spec) => write!(f, "Buffer({spec}{place})"),
            None => write!(f, "Buffer(empty, {} bytes{place})", self.capacity()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{ALIGN, PAGE};

    #[test]
    fn memory_is_aligned_zeroed_and_reusable() {
        let mut b = Buffer::new(Spec::new(DType::F64, &[3, 5]));
        assert!(b.as_slice::<f64>().iter().all(|&x| x == 0.0));
        assert_eq!(b.as_bytes().as_ptr() as usize % ALIGN, 0);
        b.respec(Spec::new(DType::F32, &[7]));
        b.set_f64(&[1.5; 7]);
        assert_eq!(b.to_f64(), [1.5; 7]);
        let large = Buffer::new(Spec::new(DType::F32, &[10_000]));
        assert_eq!(large.as_bytes().as_ptr() as usize % PAGE, 0);
        let moved = b;
        assert_eq!(moved.as_bytes().as_ptr() as usize % ALIGN, 0);
        assert_eq!(moved.clone().as_slice::<f32>(), &[1.5f32; 7]);
        // An empty value fits into no memory.
        let mut empty = Buffer::empty();
        empty.respec(Spec::new(DType::F64, &[0]));
        assert!(empty.as_slice::<f64>().is_empty() && empty.as_mut_slice::<f64>().is_empty());
    }
}
