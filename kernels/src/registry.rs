//! One line per op.

use crate::case::{Case, Sizes};
use engine::cuda::Module;

/// An op's room: its name and the cases it wants to be tried on at given sizes.
pub struct Room {
    /// Name of the folder.
    pub name: &'static str,
    /// The cases at these sizes: every variant of the op that a model uses.
    pub cases: fn(&Sizes) -> Vec<Case>,
    /// Its kernels for a GPU; `None` where it runs on the CPU only.
    pub cuda: Option<&'static [&'static Module]>,
}

/// Every room in the house.
pub const ROOMS: &[Room] = &[
    Room { name: "add", cases: crate::add::cases, cuda: None },
    Room { name: "cross_attention", cases: crate::cross_attention::cases, cuda: None },
    Room { name: "cross_entropy", cases: crate::cross_entropy::cases, cuda: None },
    Room { name: "embedding", cases: crate::embedding::cases, cuda: None },
    Room { name: "gaussian", cases: crate::gaussian::cases, cuda: None },
    Room { name: "matmul", cases: crate::matmul::cases, cuda: None },
    Room { name: "ring_attention", cases: crate::ring_attention::cases, cuda: None },
    Room { name: "rmsnorm", cases: crate::rmsnorm::cases, cuda: Some(&[&crate::rmsnorm::cuda::KERNELS]) },
    Room { name: "rope", cases: crate::rope::cases, cuda: None },
    Room { name: "slice", cases: crate::slice::cases, cuda: None },
    Room { name: "sum", cases: crate::sum::cases, cuda: None },
    Room { name: "swiglu", cases: crate::swiglu::cases, cuda: None },
    Room { name: "window_attention", cases: crate::window_attention::cases, cuda: None },
];

/// The kernels of updates in place, which have no cases.
const UPDATES: &[&Module] = &[];

/// Every kernel file in the house: what a GPU must have loaded before a plan runs.
pub fn modules() -> Vec<&'static Module> {
    ROOMS.iter().filter_map(|room| room.cuda).flatten().chain(UPDATES).copied().collect()
}
