use crate::cuda::{Memory, Pointer};
use crate::{DType, Device, Element, Error, Result, Shape, Spec};
use std::borrow::Cow;
use std::fmt;

/// A contiguous tensor: memory on the host or on a device, element type and shape. Host memory is 64-byte aligned. Memory
/// starts as zeros.
///
/// A buffer may be larger than what it currently holds: [`respec`](Self::respec) gives the memory another meaning, which
/// is how a plan's slots serve many values without allocating.
///
/// Slices and bytes can be had of host memory only. What works wherever the memory is: [`write`](Self::write),
/// [`set_f64`](Self::set_f64), [`to_f64`](Self::to_f64), [`copy_from`](Self::copy_from), [`clear`](Self::clear) and
/// [`on_host`](Self::on_host).
///
/// ```
/// use engine::{Buffer, DType};
///
/// let mut x = Buffer::from_slice(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
/// x.as_mut_slice::<f32>()[0] = 0.1;
/// assert_eq!((x.spec().to_string(), x.shape().rows(), x.shape().last()), ("f32[2, 3]".into(), 2, 3));
/// // Through f64 between types; bf16 has eight bits of precision.
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
}

impl Default for Place {
    fn default() -> Self {
        Self::Host(Host::EMPTY)
    }
}

/// Aligned memory of this process.
struct Host {
    bytes: Vec<u8>,
    /// Where the aligned part of `bytes` begins.
    offset: usize,
    /// Bytes from there on; there is no memory behind them where `bytes` is empty.
    capacity: usize,
}

const ALIGN: usize = 64;

impl Host {
    const EMPTY: Self = Self { bytes: Vec::new(), offset: 0, capacity: 0 };

    fn new(capacity: usize) -> Self {
        let bytes = vec![0; capacity + ALIGN - 1];
        let offset = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, offset, capacity }
    }

    fn missing(capacity: usize) -> Self {
        Self { capacity, ..Self::EMPTY }
    }

    fn try_new(capacity: usize) -> Result<Self> {
        // Asked for and given back: zeros that nobody has touched yet cost no memory, which a vector that was reserved and
        // then filled would.
        let possible = capacity.checked_add(ALIGN).is_some_and(|n| Vec::<u8>::new().try_reserve_exact(n).is_ok());
        if possible { Ok(Self::new(capacity)) } else { Err(Error::new(format!("no memory for {capacity} bytes more"))) }
    }
}

impl Buffer {
    /// Zeros on the host.
    pub fn new(spec: Spec) -> Self {
        let mut buffer = Self::with_capacity(spec.bytes());
        buffer.spec = Some(spec);
        buffer
    }

    /// Zeros on `device`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new_on(device: &Device, spec: Spec) -> Result<Self> {
        let mut buffer = Self::with_capacity_on(device, spec.bytes())?;
        buffer.spec = Some(spec);
        Ok(buffer)
    }

    /// No memory at all: what stands where an op must not look.
    pub const fn empty() -> Self {
        Self { spec: None, place: Place::Host(Host::EMPTY) }
    }

    /// Memory for `capacity` bytes on the host that holds nothing yet.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { spec: None, place: Place::Host(Host::new(capacity)) }
    }

    /// Memory for `capacity` bytes on `device` that holds nothing yet.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn with_capacity_on(device: &Device, capacity: usize) -> Result<Self> {
        match device {
            Device::Cpu => Ok(Self { spec: None, place: Place::Host(Host::try_new(capacity)?) }),
            Device::Cuda(gpu) => Ok(Self { spec: None, place: Place::Device(Memory::new(gpu, capacity)?) }),
        }
    }

    /// What stands for a buffer that a device had no room for, so that a plan can be finished and its need of memory
    /// told. It cannot be computed with.
    pub fn missing(device: &Device, capacity: usize) -> Self {
        match device {
            Device::Cpu => Self { spec: None, place: Place::Host(Host::missing(capacity)) },
            Device::Cuda(gpu) => Self { spec: None, place: Place::Device(Memory::missing(gpu, capacity)) },
        }
    }

    /// A copy on `device`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let mut copy = Self::with_capacity_on(device, self.capacity())?;
        if let Some(spec) = self.spec {
            copy.respec(spec);
            copy.copy_from(self);
        }
        Ok(copy)
    }

    /// The same tensor in host memory: itself, or a copy.
    pub fn on_host(&self) -> Cow<'_, Self> {
        match &self.place {
            Place::Host(_) => Cow::Borrowed(self),
            Place::Device(memory) => {
                let mut copy = Self { spec: self.spec, ..Self::with_capacity(self.capacity()) };
                if self.spec.is_some() {
                    memory.read(copy.bytes_mut());
                }
                Cow::Owned(copy)
            }
        }
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
        let spec = self.spec();
        if let Place::Device(memory) = &mut self.place {
            return memory.write(Self::from_f64(spec.dtype, spec.shape.dims(), data).as_bytes());
        }
        match spec.dtype {
            DType::F32 => fill(self.as_mut_slice(), data, |x| x as f32),
            DType::F64 => fill(self.as_mut_slice(), data, |x| x),
            DType::Bf16 => fill(self.as_mut_slice(), data, half::bf16::from_f64),
            DType::I32 => fill(self.as_mut_slice(), data, |x| x as i32),
        }
    }

    /// The elements as f64, exactly.
    pub fn to_f64(&self) -> Vec<f64> {
        if matches!(self.place, Place::Device(_)) {
            return self.on_host().to_f64();
        }
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
        self.spec.expect("the buffer holds a value (an op gets what it announces in `reads`, and no gradient to skip)")
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
        match &self.place {
            Place::Host(host) => host.capacity,
            Place::Device(memory) => memory.bytes(),
        }
    }

    /// Gives the memory another meaning; its contents are then unspecified.
    ///
    /// # Panics
    /// If the value does not fit.
    pub fn respec(&mut self, spec: Spec) {
        assert!(spec.bytes() <= self.capacity(), "{spec} does not fit into {} bytes", self.capacity());
        self.spec = Some(spec);
    }

    /// The elements of host memory.
    ///
    /// # Panics
    /// If `T` is not the element type or the memory is a device's.
    pub fn as_slice<T: Element>(&self) -> &[T] {
        let spec = self.expect::<T>();
        if spec.bytes() == 0 {
            // A buffer without memory is aligned to nothing.
            return &[];
        }
        bytemuck::cast_slice(&self.host()[..spec.bytes()])
    }

    /// The elements of host memory, to be changed.
    ///
    /// # Panics
    /// If `T` is not the element type or the memory is a device's.
    pub fn as_mut_slice<T: Element>(&mut self) -> &mut [T] {
        if self.expect::<T>().bytes() == 0 {
            return &mut [];
        }
        bytemuck::cast_slice_mut(self.bytes_mut())
    }

    /// The elements as raw bytes, for hashing, saving and bitwise comparison.
    ///
    /// # Panics
    /// If the memory is a device's.
    pub fn as_bytes(&self) -> &[u8] {
        &self.host()[..self.spec().bytes()]
    }

    /// Overwrites the elements.
    ///
    /// # Panics
    /// If `T` is not the element type or the sizes disagree.
    pub fn write<T: Element>(&mut self, data: &[T]) {
        self.expect::<T>();
        assert_eq!(self.len(), data.len(), "number of elements");
        match &mut self.place {
            Place::Host(_) => self.as_mut_slice().copy_from_slice(data),
            Place::Device(memory) => memory.write(bytemuck::cast_slice(data)),
        }
    }

    /// Copies the elements of a buffer of the same spec, wherever either of them is.
    ///
    /// # Panics
    /// If the specs differ.
    pub fn copy_from(&mut self, other: &Self) {
        assert_eq!(self.spec(), other.spec(), "copy between unlike buffers");
        let bytes = self.spec().bytes();
        match (&mut self.place, &other.place) {
            (Place::Host(_), Place::Host(_)) => self.bytes_mut().copy_from_slice(other.as_bytes()),
            (Place::Host(_), Place::Device(from)) => from.read(self.bytes_mut()),
            (Place::Device(to), Place::Host(_)) => to.write(other.as_bytes()),
            (Place::Device(to), Place::Device(from)) => to.copy_from(from, bytes),
        }
    }

    /// Sets every byte to zero.
    pub fn clear(&mut self) {
        let bytes = self.spec().bytes();
        match &mut self.place {
            Place::Host(_) => self.bytes_mut().fill(0),
            Place::Device(memory) => memory.clear(bytes),
        }
    }

    /// Where the first element lies on its device; null for an empty buffer.
    ///
    /// # Panics
    /// If a buffer with elements is in host memory, or is one that the device had no room for.
    pub fn pointer(&self) -> Pointer {
        let Some(spec) = self.spec else { return Pointer { address: 0, dtype: DType::F32 } };
        let address = self.address();
        assert!(address != 0 || self.is_empty(), "a kernel got {spec} that is not on its device");
        Pointer { address, dtype: spec.dtype }
    }

    /// Where its memory lies on a device, whatever it holds; zero in host memory.
    pub fn address(&self) -> u64 {
        match &self.place {
            Place::Host(_) => 0,
            Place::Device(memory) => memory.address(),
        }
    }

    /// Whether it is more than what stands for a buffer that a device had no room for.
    pub fn has_memory(&self) -> bool {
        match &self.place {
            Place::Host(host) => !host.bytes.is_empty() || host.capacity == 0,
            Place::Device(memory) => memory.address() != 0 || memory.bytes() == 0,
        }
    }

    fn host(&self) -> &[u8] {
        match &self.place {
            Place::Host(host) => &host.bytes[host.offset..],
            Place::Device(_) => panic!("the host cannot look into {self:?}: copy it to the host first"),
        }
    }

    /// The bytes of the value in host memory.
    fn bytes_mut(&mut self) -> &mut [u8] {
        let bytes = self.spec().bytes();
        match &mut self.place {
            Place::Host(host) => &mut host.bytes[host.offset..][..bytes],
            Place::Device(_) => panic!("the host cannot look into {:?}: copy it to the host first", self.spec),
        }
    }

    fn expect<T: Element>(&self) -> Spec {
        let spec = self.spec();
        assert_eq!(spec.dtype, T::DTYPE, "element type of {spec}");
        spec
    }
}

impl Clone for Buffer {
    /// A copy on the same device.
    ///
    /// # Panics
    /// If the device has no room.
    fn clone(&self) -> Self {
        let device = match &self.place {
            Place::Host(_) => Device::Cpu,
            Place::Device(memory) => Device::Cuda(memory.gpu().clone()),
        };
        let bytes = self.spec.map_or(self.capacity(), |spec| spec.bytes());
        let mut copy = Self::with_capacity_on(&device, bytes).unwrap_or_else(|e| panic!("{e}"));
        if let Some(spec) = self.spec {
            copy.respec(spec);
            copy.copy_from(self);
        }
        copy
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if matches!(self.place, Place::Device(_)) { " on a device" } else { "" };
        match self.spec {
            Some(spec) => write!(f, "Buffer({spec}{place})"),
            None => write!(f, "Buffer(empty, {} bytes{place})", self.capacity()),
        }
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
