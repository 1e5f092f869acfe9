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
    Room { name: "add", cases: crate::add::cases, cuda: Some(&[&crate::add::cuda::KERNELS]) },
    Room {
        name: "bias",
        cases: crate::bias::cases,
        cuda: Some(&[&crate::bias::cuda::KERNELS, &crate::add::cuda::KERNELS]),
    },
    Room {
        name: "cross_attention",
        cases: crate::cross_attention::cases,
        cuda: Some(&[&crate::cross_attention::cuda::KERNELS]),
    },
    Room {
        name: "cross_entropy",
        cases: crate::cross_entropy::cases,
        cuda: Some(&[&crate::cross_entropy::cuda::KERNELS, &crate::cast::cuda::KERNELS]),
    },
    Room { name: "embedding", cases: crate::embedding::cases, cuda: Some(&[&crate::embedding::cuda::KERNELS]) },
    Room {
        name: "gaussian",
        cases: crate::gaussian::cases,
        cuda: Some(&[&crate::gaussian::cuda::KERNELS, &crate::add::cuda::KERNELS]),
    },
    Room { name: "gelu", cases: crate::gelu::cases, cuda: Some(&[&crate::gelu::cuda::KERNELS]) },
    Room { name: "layernorm", cases: crate::layernorm::cases, cuda: Some(&[&crate::layernorm::cuda::KERNELS]) },
    Room { name: "matmul", cases: crate::matmul::cases, cuda: Some(&[&crate::add::cuda::KERNELS]) },
    Room {
        name: "ring_attention",
        cases: crate::ring_attention::cases,
        cuda: Some(&[&crate::ring_attention::cuda::KERNELS]),
    },
    Room { name: "rmsnorm", cases: crate::rmsnorm::cases, cuda: Some(&[&crate::rmsnorm::cuda::KERNELS]) },
    Room { name: "rope", cases: crate::rope::cases, cuda: Some(&[&crate::rope::cuda::KERNELS]) },
    Room { name: "slice", cases: crate::slice::cases, cuda: Some(&[&crate::slice::cuda::KERNELS]) },
    Room { name: "sum", cases: crate::sum::cases, cuda: Some(&[&crate::sum::cuda::KERNELS]) },
    Room { name: "swiglu", cases: crate::swiglu::cases, cuda: Some(&[&crate::swiglu::cuda::KERNELS]) },
    Room {
        name: "window_attention",
        cases: crate::window_attention::cases,
        cuda: Some(&[&crate::window_attention::cuda::KERNELS]),
    },
];

/// The kernels of what has no cases: updates in place, and the cast, whose rounding has no gradient to be checked.
const OTHERS: &[&Module] = &[&crate::adamw::cuda::KERNELS, &crate::cast::cuda::KERNELS, &crate::latents::cuda::KERNELS];

/// Every kernel file in the house: what a GPU must have loaded before a plan runs.
pub fn modules() -> Vec<&'static Module> {
    let mut all: Vec<_> = ROOMS.iter().filter_map(|room| room.cuda).flatten().chain(OTHERS).copied().collect();
    all.sort_by_key(|module| module.name);
    all.dedup_by_key(|module| module.name);
    all
}
