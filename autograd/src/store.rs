use engine::{Buffer, Device, Error, Result, Spec, bytes_text};

/// Names one buffer of a [`Store`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id(pub(crate) u32);

/// All memory that outlives an instruction: weights, latents, gradients, and the arena of slots that plans share.
///
/// Graphs bind their leaves to ids, so several graphs (training, evaluation, decoding) work on the same weights.
#[derive(Debug, Default)]
pub struct Store {
    device: Device,
    buffers: Vec<Buffer>,
    /// Slots that any plan may use while it runs, with their sizes in bytes.
    pub(crate) arena: Vec<(Id, usize)>,
    /// The plan whose values the arena holds.
    pub(crate) tenant: u64,
    pub(crate) scratch: Buffer,
    /// Why the device had no room for one of the buffers. From then on none is asked for.
    refused: Option<Error>,
}

impl Store {
    /// An empty store on `device`.
    pub fn new(device: Device) -> Self {
        Self { device, ..Self::default() }
    }

    /// Where the buffers live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// A new buffer of zeros. Whether a device had room for all of them is what [`ready`](Self::ready) says.
    pub fn alloc(&mut self, spec: Spec) -> Id {
        let mut buffer = self.room(spec.bytes());
        buffer.respec(spec);
        self.push(buffer)
    }

    /// Takes a buffer in, to the store's device.
    pub fn insert(&mut self, buffer: Buffer) -> Id {
        match self.device {
            Device::Cpu => self.push(buffer),
            Device::Cuda(_) => {
                let mut moved = self.room(buffer.spec().bytes());
                moved.respec(buffer.spec());
                moved.copy_from(&buffer);
                self.push(moved)
            }
        }
    }

    /// Whether the device had room for everything. To be asked when all plans are made and before one is run.
    ///
    /// # Errors
    /// How much is needed in all, and how much there is.
    pub fn ready(&self) -> Result<()> {
        let Some(refused) = &self.refused else { return Ok(()) };
        let Device::Cuda(gpu) = &self.device else {
            return Err(Error::new(format!("{} of memory are needed ({refused})", bytes_text(self.bytes()))));
        };
        let held: usize = self.all().filter(|b| !b.is_missing()).map(Buffer::capacity).sum();
        Err(Error::new(format!(
            "{} of device memory are needed, {} has room for {} ({refused})",
            bytes_text(self.bytes()),
            gpu.name(),
            bytes_text(gpu.free_bytes() + held)
        )))
    }

    fn push(&mut self, buffer: Buffer) -> Id {
        self.buffers.push(buffer);
        Id((self.buffers.len() - 1) as u32)
    }

    /// Memory on the device, or what stands for it.
    fn room(&mut self, bytes: usize) -> Buffer {
        if self.refused.is_none() {
            match Buffer::with_capacity_on(&self.device, bytes) {
                Ok(buffer) => return buffer,
                Err(e) => self.refused = Some(e),
            }
        }
        Buffer::missing(bytes)
    }

    fn all(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter().chain(std::iter::once(&self.scratch))
    }

    /// The buffer called `id`.
    pub fn get(&self, id: Id) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The buffer called `id`, to be changed.
    pub fn get_mut(&mut self, id: Id) -> &mut Buffer {
        &mut self.buffers[id.0 as usize]
    }

    /// Copies the elements of one buffer to another of the same spec.
    ///
    /// # Panics
    /// If the specs differ, or both are the same buffer.
    pub fn copy(&mut self, from: Id, to: Id) {
        let found = self.buffers.get_disjoint_mut([from.0 as usize, to.0 as usize]);
        let [from, to] = found.expect("two buffers of this store");
        to.copy_from(from);
    }

    /// All buffers, in the order in which they came.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.buffers.len() as u32).map(Id)
    }

    /// Bytes held by all buffers, the arena and the scratch memory.
    pub fn bytes(&self) -> usize {
        self.all().map(Buffer::capacity).sum()
    }

    pub(crate) fn take(&mut self, id: Id) -> Buffer {
        std::mem::take(self.get_mut(id))
    }

    pub(crate) fn put(&mut self, id: Id, buffer: Buffer) {
        *self.get_mut(id) = buffer;
    }

    /// Makes slot number `slot` of the arena hold at least `bytes` bytes.
    pub(crate) fn grow_slot(&mut self, slot: usize, bytes: usize) -> Id {
        if slot == self.arena.len() {
            let buffer = self.room(bytes);
            let id = self.push(buffer);
            self.arena.push((id, bytes));
        } else if self.arena[slot].1 < bytes {
            let id = self.arena[slot].0;
            self.arena[slot].1 = bytes;
            // The old memory goes before the new comes.
            self.take(id);
            let buffer = self.room(bytes);
            self.put(id, buffer);
            // What other plans kept there is gone.
            self.tenant = 0;
        }
        self.arena[slot].0
    }

    /// Makes the scratch memory at least `bytes` bytes large.
    pub(crate) fn grow_scratch(&mut self, bytes: usize) {
        if self.scratch.capacity() < bytes {
            self.scratch = Buffer::empty();
            self.scratch = self.room(bytes);
        }
    }
}
