use std::collections::BTreeMap;

/// Allocations with fences on both sides.
#[derive(Default)]
pub struct Heap {
    blocks: BTreeMap<u64, Block>,
}

struct Block {
    /// Words, so that the start can be aligned; the fences are inside.
    memory: Vec<u64>,
    bytes: usize,
}

const ALIGN: usize = 256;
/// Bytes before and after an allocation: more than the longest row of a case. All bits are set, which reads as NaN.
const FENCE: usize = 8 << 10;
const SPOILT: u8 = 0xff;
/// The content of a fence, for one comparison.
static WHOLE: [u8; 2 * FENCE] = [SPOILT; 2 * FENCE];

impl Block {
    /// Index of the first byte of the allocation.
    fn start(&self) -> usize {
        let first = self.memory.as_ptr() as usize;
        (first + FENCE).next_multiple_of(ALIGN) - first
    }

    fn all(&self) -> &[u8] {
        bytemuck::cast_slice(&self.memory)
    }
}

impl Heap {
    /// Zeros.
    pub fn alloc(&mut self, bytes: usize) -> u64 {
        let words = (bytes + 2 * FENCE + ALIGN).div_ceil(8);
        let mut block = Block { memory: vec![u64::MAX; words], bytes };
        let start = block.start();
        bytemuck::cast_slice_mut::<_, u8>(&mut block.memory)[start..start + bytes].fill(0);
        let address = block.memory.as_ptr() as u64 + start as u64;
        self.blocks.insert(address, block);
        address
    }

    pub fn free(&mut self, address: u64) {
        self.blocks.remove(&address).expect("memory that was allocated");
    }

    /// `bytes` bytes at an address anywhere in an allocation.
    pub fn bytes(&self, at: u64, bytes: usize) -> &[u8] {
        let (address, block) = self.blocks.range(..=at).next_back().expect("an address of the device");
        let within = (at - address) as usize;
        assert!(within + bytes <= block.bytes, "{bytes} bytes at {within} of {} bytes", block.bytes);
        &block.all()[block.start() + within..][..bytes]
    }

    /// The same, mutable.
    pub fn bytes_mut(&mut self, at: u64, bytes: usize) -> &mut [u8] {
        let (address, block) = self.blocks.range_mut(..=at).next_back().expect("an address of the device");
        let (within, start) = ((at - address) as usize, block.start());
        assert!(within + bytes <= block.bytes, "{bytes} bytes at {within} of {} bytes", block.bytes);
        &mut bytemuck::cast_slice_mut(&mut block.memory)[start + within..][..bytes]
    }

    /// Checks that all fences are intact.
    pub fn check(&self) -> Result<(), String> {
        for block in self.blocks.values() {
            let start = block.start();
            let (all, end) = (block.all(), start + block.bytes);
            if all[end..] == WHOLE[..all.len() - end] && all[..start] == WHOLE[..start] {
                continue;
            }
            let broken = |byte: &u8| *byte != SPOILT;
            let behind = all[end..].iter().position(broken).map(|i| end + i);
            let at = behind.or_else(|| all[..start].iter().rposition(broken)).unwrap_or_default();
            let (byte, bytes) = (at as i64 - start as i64, block.bytes);
            return Err(format!("byte {byte} of an allocation of {bytes} bytes was written"));
        }
        Ok(())
    }
}
