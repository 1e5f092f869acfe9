//! Every op's gradient against central differences in f64, the ops in random graphs, and faults that must be found.

mod gradients;
mod guide;
mod planted;
