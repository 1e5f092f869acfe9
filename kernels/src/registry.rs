//! One line per op.

use crate::case::{Case, Sizes};

/// An op's room: its name and the cases it wants to be tried on at given sizes.
pub struct Room {
    /// Name of the folder.
    pub name: &'static str,
    /// The cases at these sizes: every variant of the op that a model uses.
    pub cases: fn(&Sizes) -> Vec<Case>,
}

/// Every room in the house.
pub const ROOMS: &[Room] = &[
    Room { name: "add", cases: crate::add::cases },
    Room { name: "cross_attention", cases: crate::cross_attention::cases },
    Room { name: "cross_entropy", cases: crate::cross_entropy::cases },
    Room { name: "embedding", cases: crate::embedding::cases },
    Room { name: "gaussian", cases: crate::gaussian::cases },
    Room { name: "matmul", cases: crate::matmul::cases },
    Room { name: "ring_attention", cases: crate::ring_attention::cases },
    Room { name: "rmsnorm", cases: crate::rmsnorm::cases },
    Room { name: "rope", cases: crate::rope::cases },
    Room { name: "slice", cases: crate::slice::cases },
    Room { name: "sum", cases: crate::sum::cases },
    Room { name: "swiglu", cases: crate::swiglu::cases },
    Room { name: "window_attention", cases: crate::window_attention::cases },
];
