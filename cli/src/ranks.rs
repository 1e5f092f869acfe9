//! The processes of `mpirun`, `srun` or `torchrun` with `ltm train`.

mod gpus;
#[cfg(feature = "mpi")]
mod mpi;

use crate::output::note;
use crate::place::Choice;
use engine::{Alone, Collective, Error, Patience, Result};
use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

/// The variables by which launchers tell a process how many there are, its number, and its number on its machine: torchrun, Open
/// MPI, MPICH and others with PMI, `srun`. A launcher that is started by another one comes first.
const LAUNCHERS: [[&str; 3]; 4] = [
    ["WORLD_SIZE", "RANK", "LOCAL_RANK"],
    ["OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"],
    ["PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID"],
    ["SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"],
];

/// How long a process waits for others: for one that writes a checkpoint, too.
const PATIENCE: Patience =
    Patience { quiet: Duration::from_secs(10), most: Duration::from_secs(600), tell: |text| note(text) };

/// A process among those of a launcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seat {
    size: usize,
    rank: usize,
    /// Its number on its machine.
    local: usize,
}

/// Runs `work` as one of the processes that were launched, or alone. Processes other than number 0 print nothing but errors.
///
/// # Errors
/// If a launcher started several processes and they do not find each other, and those of `work`; with other processes an error ends
/// all of them instead.
pub fn among(device: Choice, work: impl FnOnce(Arc<dyn Collective>) -> Result<ExitCode>) -> Result<ExitCode> {
    let variable = |name: &str| env::var(name).ok();
    let Some((name, size)) = launched(variable) else { return work(Arc::new(Alone)) };
    if device == Choice::Cuda {
        return gpus::among(seat(variable)?, &address(variable)?, work);
    }
    #[cfg(feature = "mpi")]
    return mpi::among((name, size), work);
    #[cfg(not(feature = "mpi"))]
    Err(Error::usage(format!(
        "{name} = {size}, but this program works as one process on the CPU: build it with `cargo build --release --workspace \
         --features cli/mpi`, or give each process a GPU with --device cuda"
    )))
}

/// The number of the GPU for this process, if a launcher started several.
pub fn gpu() -> Option<usize> {
    seat(|name| env::var(name).ok()).ok().map(|seat| seat.local)
}

/// A launcher's variable for the number of processes, if there are several.
fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize)> {
    let size = |name: &str| variable(name)?.parse().ok().filter(|&size: &usize| size > 1);
    LAUNCHERS.into_iter().find_map(|[name, ..]| Some((name, size(name)?)))
}

/// What the first launcher tells of which all variables are set.
fn seat(variable: impl Fn(&str) -> Option<String>) -> Result<Seat> {
    let number = |name: &str| variable(name)?.parse().ok();
    let seats = LAUNCHERS.into_iter().filter_map(|[size, rank, local]| {
        Some(Seat { size: number(size)?, rank: number(rank)?, local: number(local)? })
    });
    seats.into_iter().find(|seat| seat.size > 1 && seat.rank < seat.size).ok_or_else(|| {
        let known = LAUNCHERS.map(|names| names.join(", ")).join("; or ");
        Error::usage(format!("a process among several must know its number; set {known}"))
    })
}

/// Where the processes meet, as `HOST:PORT`.
fn address(variable: impl Fn(&str) -> Option<String>) -> Result<String> {
    let port = variable("MASTER_PORT").and_then(|port| port.parse::<u16>().ok()?.checked_add(1));
    match (variable("MASTER_ADDR"), port) {
        // Torchrun itself listens at the port.
        (Some(host), Some(port)) if !host.is_empty() => Ok(format!("{host}:{port}")),
        _ => Err(Error::usage(
            "several processes meet at MASTER_ADDR and MASTER_PORT + 1: set them to the machine of process 0 and a port from 1024 \
             to 65534 where two are free",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of a variable in a list such as `RANK=1 WORLD_SIZE=2`.
    fn of(list: &str) -> impl Fn(&str) -> Option<String> + Copy {
        move |name| list.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(str::to_string)
    }

    #[test]
    fn what_launchers_tell() {
        let slurm = "SLURM_STEP_NUM_TASKS=4 SLURM_PROCID=3 SLURM_LOCALID=1";
        let open_mpi = "OMPI_COMM_WORLD_SIZE=8 OMPI_COMM_WORLD_RANK=5 OMPI_COMM_WORLD_LOCAL_RANK=2";
        for (list, [size, rank, local]) in [
            ("WORLD_SIZE=2 RANK=1 LOCAL_RANK=0", [2, 1, 0]),
            (open_mpi, [8, 5, 2]),
            ("PMI_SIZE=2 PMI_RANK=0 MPI_LOCALRANKID=0", [2, 0, 0]),
            (slurm, [4, 3, 1]),
            // One launcher starts the other: on each of four machines torchrun, or a daemon of Open MPI.
            (&format!("{slurm} WORLD_SIZE=32 RANK=9 LOCAL_RANK=1"), [32, 9, 1]),
            (&format!("{slurm} {open_mpi}"), [8, 5, 2]),
            // `srun --mpi=pmi2`; a batch script sets a variable for all.
            (&format!("PMI_SIZE=4 PMI_RANK=3 {slurm}"), [4, 3, 1]),
            (&format!("WORLD_SIZE=4 {slurm}"), [4, 3, 1]),
        ] {
            assert_eq!(seat(of(list)), Ok(Seat { size, rank, local }), "{list}");
            assert!(launched(of(list)).is_some());
        }
        for list in ["WORLD_SIZE=2", "WORLD_SIZE=2 RANK=2 LOCAL_RANK=0", "WORLD_SIZE=2 RANK=x LOCAL_RANK=0"] {
            let said = seat(of(list)).unwrap_err().to_string();
            assert!(said.contains("set WORLD_SIZE, RANK, LOCAL_RANK; or OMPI_COMM_WORLD_SIZE, "), "{said}");
        }
        for list in ["", "WORLD_SIZE=1 RANK=0 LOCAL_RANK=0", "PMI_SIZE=x"] {
            assert_eq!(launched(of(list)), None);
        }
    }

    #[test]
    fn where_processes_meet() {
        assert_eq!(address(of("MASTER_ADDR=node-1 MASTER_PORT=29500")).as_deref(), Ok("node-1:29501"));
        for list in
            ["", "MASTER_ADDR=a", "MASTER_PORT=1", "MASTER_ADDR=a MASTER_PORT=65535", "MASTER_ADDR= MASTER_PORT=1"]
        {
            assert!(address(of(list)).unwrap_err().to_string().contains("MASTER_ADDR and MASTER_PORT + 1"), "{list}");
        }
    }
}
