#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod buffer;
pub mod case;
pub mod collective;
#[allow(unsafe_code)]
pub mod cuda;
mod device;
mod dtype;
pub mod eager;
mod error;
pub mod file;
mod meeting;
mod memory;
pub mod op;
pub mod parallel;
pub mod probe;
pub mod rng;
mod shape;
#[allow(unsafe_code)]
pub mod simd;

pub use buffer::Buffer;
pub use collective::{Alone, Collective};
pub use device::{Device, Products};
pub use dtype::{DType, Element};
pub use eager::Eager;
pub use error::{Error, ErrorKind, Result, bytes_text};
pub use meeting::Patience;
pub use op::{Context, Cost, Form, Op, Output, Pass, Reads, Update, Want};
pub use shape::{Shape, Spec};
