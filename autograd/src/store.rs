use engine::{Buffer, Device, Error, Result, Spec, bytes_text};

/// Names one buffer of a [`Store`], with its type and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    pub(crate) number: u32,
    /// Type and shape of the buffer.
    pub spec: Spec,
}

/// All memory that outlives an instruction: leaves, gradients, and the arena of slots that plans share.
///
/// Graphs bind their leaves to ids, so that several graphs can work on the same weights.
#[derive(Debug, Default)]
pub struct Store {
    /// Where the buffers live.
    pub device: Device,
    buffers: Vec<Buffer>,
    /// Slots that any plan may use while it runs: the indices of their buffers, and their sizes in bytes.
    pub(crate) arena: Vec<(u32, usize)>,
    /// The plan whose values are in the arena.
    pub(crate) tenant: u64,
    pub(crate) scratch: Buffer,
    /// The error when the device lacked memory for a buffer. After it the store allocates no more memory.
    refused: Option<Error>,
}

impl Store {
    /// An empty store on `device`.
    pub fn new(device: Device) -> Self {
        Self { device, ..Self::default() }
    }

    /// A new buffer of zeros. [`ready`](Self::ready) returns whether the device had memory for all of them.
    pub fn alloc(&mut self, spec: Spec) -> Id {
        let mut buffer = self.room(spec.bytes());
        buffer.respec(spec);
        Id { number: self.push(buffer), spec }
    }

    /// Moves a buffer to the store's device and keeps it.
    pub fn insert(&mut self, buffer: Buffer) -> Id {
        let spec = buffer.spec();
        if let Device::Cpu(_) = self.device {
            return Id { number: self.push(buffer), spec };
        }
        let id = self.alloc(spec);
        self.get_mut(id).copy_from(&buffer);
        id
    }

    /// Checks that the device had memory for everything. Call this after making all plans and before the first run.
    ///
    /// # Errors
    /// If memory was missing; the error names the total needed and the memory available.
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

    /// Memory on the device, or a placeholder if there is none.
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

    /// The buffer `id`.
    pub fn get(&self, id: Id) -> &Buffer {
        &self.buffers[id.number as usize]
    }

    /// The buffer `id`, mutable.
    pub fn get_mut(&mut self, id: Id) -> &mut Buffer {
        &mut self.buffers[id.number as usize]
    }

    /// These buffers, mutable, in the order in which they were made.
    pub fn all_of(&mut self, ids: &[Id]) -> Vec<&mut Buffer> {
        let mut wanted = vec![false; self.buffers.len()];
        ids.iter().for_each(|id| wanted[id.number as usize] = true);
        self.buffers.iter_mut().zip(wanted).filter_map(|(buffer, wanted)| wanted.then_some(buffer)).collect()
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
        // A slot of the arena holds many values, one after the other.
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
            // Frees the old memory before it allocates the new.
            self.buffers[number] = Buffer::empty();
            self.buffers[number] = self.room(bytes);
            // The values of other plans in this slot are lost.
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
