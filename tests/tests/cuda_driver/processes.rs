//! Processes with a GPU each: what they compute together, and how their failures show.

use crate::{FILL, open, settings};
use engine::collective::Collective;
use engine::cuda::{Arg, EXCHANGE, Gpu, Gpus, Grid, Settings};
use engine::{Buffer, DType, Device, Error, Patience, Spec};
use std::fs;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;
use tests::driver::{ask, in_child, in_processes, toolkit};

/// What the user was told.
static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn patience(most: u64) -> Patience {
    let tell = |text: &str| TOLD.lock().expect("no panic").push(text.into());
    Patience { quiet: Duration::from_millis(200), most: Duration::from_secs(most), tell }
}

fn meet(rank: usize, size: usize, address: &str, most: u64) -> Result<Gpus, String> {
    Gpus::meet(&settings(), address, rank, size, patience(most)).map_err(|e| e.to_string())
}

fn gpu() -> Arc<dyn Gpu> {
    open(&settings(), &[&FILL, &EXCHANGE]).unwrap_or_else(|e| panic!("{e}"))
}

fn zeros(gpu: &Arc<dyn Gpu>, len: usize) -> Buffer {
    Buffer::new_on(&Device::Cuda(gpu.clone()), Spec::new(DType::F32, &[len])).expect("room")
}

fn numbers(x: &Buffer) -> Vec<f32> {
    x.on_host().expect("a sound device").as_slice::<f32>().to_vec()
}

fn ask_nccl(function: &str) -> usize {
    ask(toolkit().join("libnccl.so.2").to_str().expect("a path in UTF-8"), function)
}

#[test]
fn sums_are_the_tree_of_all_processes() {
    for size in ["1", "2", "4"] {
        let processes = size.parse().expect("a number");
        in_processes("processes::sums_are_the_tree_of_all_processes", processes, &[("SIZE", size)], |rank, address| {
            let gpu = gpu();
            let before = ask("libcuda.so", "fake_allocations");
            let gpus = meet(rank, processes, address, 60).expect("all meet");
            assert_eq!((gpus.rank(), gpus.size()), (rank, processes));
            let tree = |numbers: &dyn Fn(usize) -> Vec<f32>| {
                let mut tree: Vec<Vec<f32>> = (0..processes).map(numbers).collect();
                while tree.len() > 1 {
                    let pairs = tree.chunks(2).map(|pair| pair[0].iter().zip(&pair[1]).map(|(a, b)| a + b).collect());
                    tree = pairs.collect();
                }
                tree.remove(0)
            };
            // Once alone and once with more numbers than before; all at once.
            for lens in [&[5][..], &[0, 1, 64, 5, 1001, 2, 1001]] {
                let own = |len: usize| {
                    let number =
                        move |i: usize, rank: usize| (1.0 + i as f32).powi(rank as i32 * 3 - 7) + (rank * len) as f32;
                    move |rank: usize| (0..len).map(|i| number(i, rank)).collect::<Vec<f32>>()
                };
                let mut xs: Vec<Buffer> = lens.iter().map(|&len| zeros(&gpu, len)).collect();
                xs.iter_mut().zip(lens).for_each(|(x, &len)| x.write(&own(len)(rank)));
                gpus.sum(&mut xs.iter_mut().collect::<Vec<_>>()).expect("sums");
                for (x, &len) in xs.iter().zip(lens) {
                    assert_eq!(numbers(x), tree(&own(len)), "{len} numbers");
                }
            }
            let groups = 2 * 2 * processes.ilog2() as usize;
            assert_eq!(ask_nccl("fake_groups"), groups, "messages there and back at every level, of all sums together");

            // What was launched before belongs to the numbers.
            let mut x = zeros(&gpu, 3);
            let args = [Arg::from(&x), Arg::F32(1.0 + rank as f32), 3.into()];
            gpu.launch(&FILL.kernel("fill", DType::F32), Grid::new(1, 32), &args);
            gpus.sum(&mut [&mut x]).expect("a sum");
            assert_eq!(numbers(&x), [(processes * (processes + 1) / 2) as f32; 3]);
            gpu.launch(&FILL.kernel("fill", DType::F32), Grid::new(1, 32), &args);
            gpus.broadcast(&mut x).expect("the numbers of process 0");
            assert_eq!(numbers(&x), [1.0; 3]);
            let all = gpus.gather(&[rank as u64, 7]).expect("all numbers");
            assert_eq!(all, (0..processes as u64).flat_map(|rank| [rank, 7]).collect::<Vec<_>>());

            assert!(!gpus.leave(None));
            drop((gpus, x));
            assert_eq!((ask_nccl("fake_ended"), ask_nccl("fake_aborted"), ask_nccl("fake_misuses")), (1, 0, 0));
            assert_eq!(ask("libcuda.so", "fake_allocations"), before, "all memory was freed");
        });
    }
}

#[test]
fn a_library_that_cannot_be_used() {
    let folder = crate::folder("nccl");
    let name = "processes::a_library_that_cannot_be_used";
    let refused = |settings: &Settings| Gpus::meet(settings, "", 0, 1, patience(1)).expect_err("no NCCL").to_string();
    in_child(name, &[("FAKE_NCCL_VERSION", "21304")], || {
        let file = toolkit().join("libnccl.so.2");
        let said = format!("{} is NCCL 2.13.4: 2.14 or later is needed", file.display());
        assert_eq!(refused(&settings()), said);
    });
    in_child(name, &[("PART", "a missing function")], || {
        let file = folder.join("libnccl.so.2");
        fs::copy(toolkit().join("libcublasLt.so"), &file).expect("a copy");
        let said = format!("{} lacks ncclGetVersion: NCCL 2.14 or later is needed", file.display());
        let lacking = Settings { libraries: vec![folder.clone()], ..Settings::default() };
        // A machine may have NCCL on the loader's path.
        assert!(has_nccl() || refused(&lacking) == said, "{}", refused(&lacking));
    });
    in_child(name, &[("PART", "no library")], || {
        let said = "several processes with GPUs need NCCL, but libnccl.so.2 is not found: install it, or name its folder in \
                    LTM_CUDA_LIBRARIES";
        assert!(has_nccl() || refused(&Settings::default()) == said);
        fs::write(folder.join("libnccl.so.2"), "no library").expect("a file");
        let damaged = refused(&Settings { libraries: vec![folder.clone()], ..Settings::default() });
        assert!(has_nccl() || damaged.contains("/libnccl.so.2: "), "{damaged}");
    });
    // As NVIDIA's Python packages have it: nvidia/cu13/lib and nvidia/nccl/lib.
    in_processes(name, 1, &[("PART", "beside")], |_, address| {
        for folder in ["cu13/lib", "nccl/lib"].map(|name| crate::folder(&format!("beside/{name}"))) {
            if folder.ends_with("nccl/lib") {
                fs::copy(toolkit().join("libnccl.so.2"), folder.join("libnccl.so.2")).expect("a copy");
            }
        }
        let lib = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("driver/beside/cu13/lib");
        let settings = Settings { libraries: vec![lib], ..Settings::default() };
        let met = Gpus::meet(&settings, address, 0, 1, patience(1)).expect("the library");
        assert!(format!("{met:?}").contains("NCCL 2."), "{met:?}");
    });
}

/// Whether the loader finds NCCL by its name.
fn has_nccl() -> bool {
    // SAFETY: when loaded, the library only sets up its own memory.
    unsafe { libloading::Library::new("libnccl.so.2") }.is_ok()
}

#[test]
fn processes_that_do_not_come_or_are_late() {
    let name = "processes::processes_that_do_not_come_or_are_late";
    in_child(name, &[("PART", "alone")], || {
        let refused = |address, rank| meet(rank, 3, address, 1).expect_err("nobody comes");
        let address = "localhost:47391";
        assert_eq!(refused(address, 0), "process 1, 2 of 3 has not come to localhost:47391 in 1 s");
        assert_eq!(*TOLD.lock().expect("no panic"), ["waiting at localhost:47391 for process 1, 2"]);
        let said = refused(address, 2);
        assert!(said.starts_with("process 2 cannot reach process 0 at localhost:47391: "), "{said}");
        assert_eq!(refused("localhost", 0), "localhost is not HOST:PORT");
    });
    in_processes(name, 2, &[("PART", "other numbers")], |rank, address| {
        let size = [2, 4][rank];
        let met = meet(rank, size, address, 2);
        let said = "process 1 is one of 4, and process 0 one of 2";
        assert!(if rank == 0 { met.err().as_deref() == Some(said) } else { met.is_ok() });
    });
    in_processes(name, 2, &[("PART", "late")], |rank, address| {
        let gpus = meet(rank, 2, address, 60).expect("both meet");
        if rank == 1 {
            sleep(Duration::from_millis(600));
        }
        gpus.gather(&[1]).expect("both in the end");
        let told = TOLD.lock().expect("no panic").iter().any(|said| said == "waiting for process 1");
        assert_eq!(told, rank == 0);
    });
}

/// The process that fails first, and what process 0 says.
#[test]
fn a_failure_ends_all() {
    let name = "processes::a_failure_ends_all";
    let end = |gpus: &Gpus, done: engine::Result<()>| {
        let error = done.expect_err("another process fails");
        (gpus.leave(Some(&error)), error.to_string())
    };
    // A process ends without a word, while the others wait for a message or a GPU.
    for part in ["gone in a gather", "gone in a sum"] {
        in_processes(name, 4, &[("PART", part)], |rank, address| {
            let (gpu, gpus) = (gpu(), meet(rank, 4, address, 60).expect("all meet"));
            let mut x = zeros(&gpu, 8);
            gpus.broadcast(&mut x).expect("numbers");
            if rank == 2 {
                return;
            }
            let done = if part.ends_with("sum") { gpus.sum(&mut [&mut x]) } else { gpus.gather(&[1]).map(drop) };
            let ended = end(&gpus, done);
            let said = if rank == 0 { "process 2 is gone" } else { "process 0: process 2 is gone" };
            assert_eq!(ended, (rank == 0, said.into()));
            assert_eq!(ask_nccl("fake_aborted"), 1);
            // The GPU does not wait for ever.
            assert_eq!(gpu.finish(), Ok(()));
            let again = gpus.gather(&[1]).expect_err("it is over");
            assert!(!again.to_string().is_empty());
        });
    }
    in_processes(name, 4, &[("PART", "number 0 is gone")], |rank, address| {
        let gpus = meet(rank, 4, address, 60).expect("all meet");
        if rank > 0 {
            assert_eq!(end(&gpus, gpus.gather(&[1]).map(drop)), (rank == 1, "process 0 is gone".into()));
        }
    });
    in_processes(name, 2, &[("PART", "told")], |rank, address| {
        let gpus = meet(rank, 2, address, 60).expect("both meet");
        if rank == 1 {
            assert!(!gpus.leave(Some(&Error::new("no room"))), "process 0 reports it");
        } else {
            assert_eq!(end(&gpus, gpus.gather(&[1]).map(drop)), (true, "process 1: no room".into()));
        }
    });
    // All have the same error: one reports it.
    in_processes(name, 2, &[("PART", "the same")], |rank, address| {
        let gpus = meet(rank, 2, address, 60).expect("both meet");
        assert_eq!(gpus.leave(Some(&Error::new("no room"))), rank == 0);
    });
    in_processes(name, 2, &[("PART", "silent")], |rank, address| {
        let (gpu, gpus) = (gpu(), meet(rank, 2, address, 1).expect("both meet"));
        let mut x = zeros(&gpu, 8);
        gpus.broadcast(&mut x).expect("numbers");
        if rank == 1 {
            return sleep(Duration::from_millis(1800));
        }
        assert_eq!(end(&gpus, gpus.sum(&mut [&mut x])), (true, "the other processes have not answered for 1 s".into()));
        assert_eq!(ask_nccl("fake_aborted"), 1);
    });
    // The first group is the broadcast.
    in_processes(name, 2, &[("FAKE_NCCL_ERROR", "2")], |rank, address| {
        let (gpu, gpus) = (gpu(), meet(rank, 2, address, 60).expect("both meet"));
        let mut x = zeros(&gpu, 8);
        gpus.broadcast(&mut x).expect("numbers");
        let (reports, said) = end(&gpus, gpus.sum(&mut [&mut x]));
        let why = "NCCL 2.27.3 cannot send and receive: remote process exited or there was a network error, connection closed";
        assert!(said.ends_with(why), "{said}");
        assert_eq!((reports, ask_nccl("fake_aborted")), (rank == 0, 1));
        let again = gpus.sum(&mut [&mut x]).expect_err("no communicator");
        assert!(!again.to_string().is_empty());
    });
}

#[test]
fn a_gpu_by_its_number() {
    let opened = |name: &str| {
        let opened = Device::open(name, &[&FILL], &settings());
        opened.map(|_| ask("libcuda.so", "fake_device")).map_err(|e| e.to_string())
    };
    in_child("processes::a_gpu_by_its_number", &[("FAKE_GPUS", "2")], || {
        assert_eq!(["cuda", "cuda:1", "cuda:0"].map(opened), [Ok(0), Ok(1), Ok(0)]);
        assert_eq!(opened("cuda:2"), Err("there is no GPU 2: the NVIDIA driver lists 2, from 0".into()));
        assert_eq!(opened("cuda:"), Err("unknown device 'cuda:'; use cpu, cuda, cuda:N or auto".into()));
    });
    // A launcher may show each process its own GPU only.
    in_child("processes::a_gpu_by_its_number", &[("FAKE_GPUS", "1")], || assert_eq!(opened("cuda:3"), Ok(0)));
}
