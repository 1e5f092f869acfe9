//! `ltm cuda compile`.

use super::output::{check_place, note, print};
use super::place::Place;
use engine::Result;
use engine::cuda::{Arch, Settings, compile_file};
use lab::table::si;
use ltm::shell;
use std::path::PathBuf;

/// Prepare for NVIDIA GPUs
#[derive(clap::Subcommand)]
pub enum Command {
    Compile(Compile),
}

/// Compile all kernels into one file, for machines that have the NVIDIA driver but no compiler
///
/// Needs NVRTC but no GPU. LTM_CUDA_LIBRARIES names folders with NVRTC, such as those of NVIDIA's Python packages
/// (site-packages/nvidia/cu13/lib). The file works only with this version of the program. LTM_CUDA_KERNELS=FILE uses
/// it.
#[derive(clap::Args)]
pub struct Compile {
    /// File to write; an existing file is replaced once the new one is complete
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// GPUs to compile for, e.g. sm_80,sm_90a [default: A100, H100 and H200, both kinds of Blackwell]
    #[arg(long, value_name = "SM", value_delimiter = ',')]
    arch: Vec<Arch>,
}

pub fn run(command: &Command, place: &Place) -> Result<()> {
    let Command::Compile(args) = command;
    let mut archs = if args.arch.is_empty() { Arch::USUAL.to_vec() } else { args.arch.clone() };
    archs.sort();
    archs.dedup();
    check_place(&args.out, "")?;
    let names = archs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    note(format_args!("compiling all kernels for {names}: about half a minute for each on two cores"));
    let made =
        place.inside(0, || compile_file(&kernels::registry::modules(), &archs, &Settings::from_env(), &args.out))?;
    made.spills.iter().for_each(note);
    note(format_args!(
        "{} kernels for {names} by {}, {}; {}={} uses them",
        made.kernels,
        made.compiler,
        si(made.bytes as f64, "B"),
        Settings::KERNELS,
        shell::path(&args.out)
    ));
    print(args.out.display())
}
