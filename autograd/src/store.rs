use engine::{Buffer, Device, Spec};

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

    /// A new buffer of zeros.
    pub fn alloc(&mut self, spec: Spec) -> Id {
        self.insert(Buffer::new(spec))
    }

    /// Takes a buffer in.
    pub fn insert(&mut self, buffer: Buffer) -> Id {
        self.buffers.push(buffer);
        Id((self.buffers.len() - 1) as u32)
    }

    /// The buffer called `id`.
    pub fn get(&self, id: Id) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The buffer called `id`, to be changed.
    pub fn get_mut(&mut self, id: Id) -> &mut Buffer {
        &mut self.buffers[id.0 as usize]
    }

    /// All buffers, in the order in which they came.
    pub fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.buffers.len() as u32).map(Id)
    }

    /// Bytes held by all buffers, the arena and the scratch memory.
    pub fn bytes(&self) -> usize {
        self.buffers.iter().map(Buffer::capacity).sum::<usize>() + self.scratch.capacity()
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
            let id = self.insert(Buffer::with_capacity(bytes));
            self.arena.push((id, bytes));
        } else if self.arena[slot].1 < bytes {
            let id = self.arena[slot].0;
            self.arena[slot].1 = bytes;
            self.put(id, Buffer::with_capacity(bytes));
            // What other plans kept there is gone.
            self.tenant = 0;
        }
        self.arena[slot].0
    }
}
