use engine::{Buffer, Device, Error, Result, Spec, bytes_text};

/// Names one buffer of a [`Store`] and says what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    pub(crate) number: u32,
    /// Type and shape of the buffer.
    pub spec: Spec,
}

/// All memory that outlives an instruction: the graphs' leaves, gradients, and the arena of slots that plans share.
///
/// Graphs bind their leaves to ids, so that several graphs can work on the same weights.
#[derive(Debug, Default)]
pub struct Store {
    /// Where the buffers live.
    pub device: Device,
    buffers: Vec<Buffer>,
    /// Slots that any plan may use while it runs: the numbers of their buffers, and their sizes in bytes.
    pub(crate) arena: Vec<(u32, usize)>,
    /// The plan whose values the arena holds.
    pub(crate) tenant: u64,
    pub(crate) scratch: Buffer,
    /// Why the device had no room for a buffer. From then on the store asks for no more memory.
    refused: Option<Error>,
}

impl Store {
    /// An empty store on `device`.
    pub fn new(device: Device) -> Self {
        Self { device, ..Self::default() }
    }

    /// A new buffer of zeros. [`ready`](Self::ready) says whether the device had room for all of them.
    pub fn alloc(&mut self, spec: Spec) -> Id {
        let mut buffer = self.room(spec.bytes());
        buffer.respec(spec);
        Id { number: self.push(buffer), spec }
    }

    /// Takes a buffer in and moves it to the store's device.
    pub fn insert(&mut self, buffer: Buffer) -> Id {
        let spec = buffer.spec();
        if let Device::Cpu = self.device {
            return Id { number: self.push(buffer), spec };
        }
        let id = self.alloc(spec);
        self.get_mut(id).copy_from(&buffer);
        id
    }

    /// Whether the device had room for everything. Ask when all plans are made and before the first one runs.
    ///
    /// # Errors
    /// If it had not: how much is needed in all, and how much there is.
    pub fn ready(&self) -> Result<()> {
        let Some(refused) = &self.refused else { return Ok(()) };
        let Device::Cuda(gpu) = &self.device else {
            return Err(Error::new(format!("{} of memory are needed ({refused})", bytes_text(self.bytes()))));
        };
        let held: usize = self.all().filter(|b| b.address() != 0).map(Buffer::capacity).sum();
        Err(Error::new(format!(
            "{} of device memory are needed, {} has room for {} ({refused})",
            bytes_text(self.bytes()),
            gpu.name(),
            bytes_text(gpu.free_bytes() + held)
        )))
    }

    fn push(&mut self, buffer: Buffer) -> u32 {
        self.buffers.push(buffer);
        (self.buffers.len() - 1) as u32
    }

    /// Memory on the device, or what stands for it if there is none.
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
        &self.buffers[id.number as usize]
    }

    /// The buffer called `id`, to be changed.
    pub fn get_mut(&mut self, id: Id) -> &mut Buffer {
        &mut self.buffers[id.number as usize]
    }

    /// Copies the elements of one buffer to another of the same spec.
    pub fn copy(&mut self, from: Id, to: Id) {
        let found = self.buffers.get_disjoint_mut([from.number as usize, to.number as usize]);
        let [from, to] = found.expect("two buffers of this store");
        to.copy_from(from);
    }

    /// Bytes held by all buffers, the arena and the scratch memory.
    pub fn bytes(&self) -> usize {
        self.all().map(Buffer::capacity).sum()
    }

    /// Takes a buffer out, for an instruction that writes it.
    pub(crate) fn take(&mut self, id: Id) -> Buffer {
        let mut buffer = std::mem::take(self.get_mut(id));
        // A slot of the arena holds many values in turn.
        buffer.respec(id.spec);
        buffer
    }

    /// Makes slot number `slot` of the arena hold at least `bytes` bytes.
    pub(crate) fn grow_slot(&mut self, slot: usize, bytes: usize) {
        if slot == self.arena.len() {
            let buffer = self.room(bytes);
            let number = self.push(buffer);
            self.arena.push((number, bytes));
        } else if self.arena[slot].1 < bytes {
            self.arena[slot].1 = bytes;
            let number = self.arena[slot].0 as usize;
            // The old memory goes before the new comes.
            self.buffers[number] = Buffer::empty();
            self.buffers[number] = self.room(bytes);
            // What other plans kept there is gone.
            self.tenant = 0;
        }
    }

    /// Makes the scratch memory at least `bytes` bytes large.
    pub(crate) fn grow_scratch(&mut self, bytes: usize) {
        if self.scratch.capacity() < bytes {
            self.scratch = Buffer::empty();
            self.scratch = self.room(bytes);
        }
    }
}
