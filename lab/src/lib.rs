//! Work with models and runs: audits, suites, sweeps, reports, benchmarks, imports, verification.

#![forbid(unsafe_code)]

pub mod audit;
pub mod bench;
pub mod eval;
pub mod import;
pub mod ledger;
pub mod plan;
pub mod plot;
pub mod quality;
pub mod reading;
pub mod reasoning;
pub mod report;
pub mod suite;
pub mod sweep;
pub mod table;
pub mod tensorboard;
pub mod text;
pub mod toml_file;
pub mod transcript;
pub mod verify;
