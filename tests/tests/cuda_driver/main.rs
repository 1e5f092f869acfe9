//! Tests the real CUDA backend with simulated NVIDIA libraries: possible failures, sources of kernels, and the order of
//! copies, launches and captures.

mod processes;
mod sources;

use engine::cuda::{Arg, Factor, Gpu, Grid, Module, Pointer, Product, Settings};
use engine::probe::{State, probe};
use engine::{Buffer, DType, Device, ErrorKind, Result, Spec};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use tests::driver::{ask, in_child, panic_of, toolkit};
use tests::products;
use tests::shim::gpu;

static FILL: Module = Module::new(
    "fill",
    "//! fill 8 4 4\n//! add 8 4 4\n\
     extern \"C\" __global__ void fill(float* x, float value, int n) {}\n\
     extern \"C\" __global__ void add(float* x, float value, int n) {}\n",
);

/// An empty folder for this test.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("driver").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

fn settings() -> Settings {
    Settings { libraries: vec![toolkit()], ..Settings::default() }
}

fn open(settings: &Settings, modules: &[&'static Module]) -> Result<Arc<dyn Gpu>> {
    Ok(gpu(&Device::open("cuda", modules, settings)?.0).clone())
}

fn error(settings: &Settings, modules: &[&'static Module]) -> String {
    open(settings, modules).expect_err("no device").to_string()
}

fn read(buffer: &Buffer) -> Vec<f64> {
    buffer.read_f64().expect("a sound device")
}

fn device() -> Device {
    Device::open("cuda", &[&FILL], &settings()).unwrap_or_else(|e| panic!("{e}")).0
}

#[test]
fn machines_that_cannot_be_used() {
    for (variable, value, said) in [
        ("FAKE_INIT", "100", "no CUDA device: the NVIDIA driver is installed but lists no GPU"),
        ("FAKE_INIT", "1", "the NVIDIA driver does not start: invalid argument (CUDA error 1); "),
        (
            "FAKE_VERSION",
            "12020",
            "the NVIDIA driver is too old: it supports CUDA 12.2, but this program needs 12.4 (driver 550)",
        ),
        ("FAKE_CAPABILITY", "75", "Fake GPU (sm_75) is too old: bf16 needs sm_80 (A100, RTX 30) or later"),
    ] {
        in_child("machines_that_cannot_be_used", &[(variable, value)], || {
            let refused = open(&settings(), &[]).expect_err("no device");
            assert!(refused.kind == ErrorKind::Device && refused.to_string().starts_with(said), "{refused}");
            assert_eq!(Device::open("auto", &[], &settings()).expect("the CPU").1, Some(refused));
            let missing = if variable == "FAKE_CAPABILITY" { "GPU" } else { "driver" };
            let found = probe(&settings(), &Device::CPU);
            assert!(found.iter().any(|f| f.part == missing && f.state == State::Missing), "{found:?}");
        });
    }
}

#[test]
fn what_was_found() {
    in_child("what_was_found", &[("FAKE_GPUS", "2")], || {
        let device = device();
        let found = probe(&settings(), &device);
        let of =
            |part| found.iter().filter(move |f| f.part == part).map(|f| (f.state, f.text.as_str())).collect::<Vec<_>>();
        // It follows the version of the machine's own driver, if there is one.
        assert!(of("driver")[0].0 == State::Used && of("driver")[0].1.ends_with("supports CUDA 13.0"), "{found:?}");
        let name = "Fake GPU (sm_90a), 132 multiprocessors, 1.0 GiB";
        assert_eq!(of("GPU")[0], (State::Used, name));
        assert_eq!(of("GPU")[1], (State::Unused, format!("{name}; CUDA_VISIBLE_DEVICES=1 chooses it").as_str()));
        let file = |name: &str| toolkit().join(name).canonicalize().expect("a file").display().to_string();
        assert_eq!(of("NVRTC"), [(State::Used, format!("13.0 ({})", file("libnvrtc.so")).as_str())]);
        assert_eq!(of("cuBLASLt"), [(State::Used, format!("13.0.2 ({})", file("libcublasLt.so")).as_str())]);
        assert_eq!(of("kernel cache")[0].0, State::Missing);
        let software = gpu(&device).software();
        assert_eq!((of("driver")[0].1, "cuBLASLt 13.0.2"), (software.driver.as_str(), software.products.as_str()));
        assert_eq!(software.compiler, "NVRTC 13.0");
    });
}

#[test]
fn memory_copies_and_launches() {
    in_child("memory_copies_and_launches", &[("FAKE_MEMORY", "100000000")], || {
        let device = device();
        let gpu = gpu(&device);
        assert_eq!((gpu.name(), format!("{gpu:?}").as_str()), ("Fake GPU", "Fake GPU (sm_90a)"));
        let before = (gpu.free_bytes(), ask("libcuda.so", "fake_allocations"));
        let mut x = Buffer::new_on(&device, Spec::new(DType::F32, &[5])).expect("room");
        assert_eq!(read(&x), [0.0; 5], "memory starts as zeros");
        // The source of a copy must not be read later.
        let mut numbers = vec![1.0f32, 2.0, 3.0, 4.0, 5.0];
        x.write(&numbers);
        numbers.fill(0.0);
        let mut y = x.to_device(&device).expect("room");
        let add = FILL.kernel("add", DType::F32);
        gpu.launch(&add, Grid::covering(5, 128), &[(&mut y).into(), Arg::F32(0.5), 5.into()]);
        gpu.launch(&add, Grid::covering(0, 128), &[]);
        assert_eq!(read(&y), [1.5, 2.5, 3.5, 4.5, 5.5]);
        assert_eq!(read(&x), [1.0, 2.0, 3.0, 4.0, 5.0]);
        x.clear();
        assert_eq!((gpu.finish(), read(&x)), (Ok(()), vec![0.0; 5]));
        gpu.launch(&add, Grid::covering(5, 128), &[(&mut x).into(), Arg::F32(0.5), 5.into()]);
        drop((x, y));
        assert_eq!((gpu.free_bytes(), ask("libcuda.so", "fake_allocations")), before, "all memory was freed");
        let full = Buffer::new_on(&device, Spec::new(DType::F32, &[100_000_000])).expect_err("no room");
        let said = "Fake GPU has no room for 381.47 MiB: 63.37 MiB of 95.37 MiB are free";
        assert_eq!((full.kind, full.to_string().as_str()), (ErrorKind::Device, said));
        assert_eq!(gpu.finish(), Ok(()), "full memory is not a failure of the device");
        // Another thread has no context of its own.
        std::thread::scope(|scope| {
            scope.spawn(|| Buffer::new_on(&device, Spec::new(DType::F32, &[5])).expect("room"));
        });
    });
}

#[test]
fn wrong_launches_are_refused() {
    in_child("wrong_launches_are_refused", &[], || {
        let device = device();
        let gpu = gpu(&device);
        let x = Buffer::new_on(&device, Spec::new(DType::F32, &[5])).expect("room");
        let fill = FILL.kernel("fill", DType::F32);
        let grid = Grid::new(1, 32);
        let args = [Arg::from(&x), Arg::F32(1.0), 5.into()];
        let said = |kernel, grid, args: &[Arg]| panic_of(|| gpu.launch(&kernel, grid, args));
        assert_eq!(said(fill, grid, &args[..2]), "fill fill: 2 arguments, the kernel has 3 parameters");
        let wide = [args[0], Arg::F64(1.0), args[2]];
        assert_eq!(said(fill, grid, &wide), "fill fill: argument 1 has 8 bytes, must have 4");
        assert_eq!(said(fill, Grid::new(1, 512), &args), "fill fill: 512 threads in a block, the kernel can have 256");
        let shared = said(fill, grid.shared(227 << 10), &args);
        assert_eq!(shared, "fill fill: 232448 bytes of shared memory, a block has 231424");
        let unknown = said(FILL.kernel("fell", DType::F32), grid, &args);
        assert_eq!(unknown, "the kernel fell of fill is not loaded");
        // None of this has any lasting effect.
        gpu.launch(&fill, grid, &args);
        assert_eq!(read(&x), [1.0; 5]);
    });
}

#[test]
fn a_phase_is_captured() {
    in_child("a_phase_is_captured", &[], || {
        let device = device();
        let gpu = gpu(&device);
        let mut x = Buffer::new_on(&device, Spec::new(DType::F32, &[3])).expect("room");
        let mut y = x.to_device(&device).expect("room");
        gpu.begin_capture();
        let args = [Arg::from(&x), Arg::F32(1.0), 3.into()];
        gpu.launch(&FILL.kernel("add", DType::F32), Grid::new(1, 32), &args);
        y.copy_from(&x);
        let said = panic_of(|| drop(gpu.alloc(8)));
        assert_eq!(said, "Fake GPU: cannot allocate while a phase is captured");
        assert_eq!(panic_of(|| drop(x.read_f64())), "Fake GPU: cannot copy to the host while a phase is captured");
        let recording = gpu.end_capture();
        assert_eq!(read(&y), [0.0; 3], "recorded, not run");
        for _ in 0..3 {
            recording.launch();
        }
        x.clear();
        recording.launch();
        assert_eq!((read(&x), read(&y)), (vec![1.0; 3], vec![1.0; 3]));
        drop(recording);
        assert!(panic_of(|| drop(gpu.end_capture())).contains("no phase is being captured"));
    });
}

#[test]
fn captures_can_be_turned_off() {
    for (value, captures) in [("0", false), ("1", true), ("", true)] {
        in_child("captures_can_be_turned_off", &[(Settings::CAPTURE, value)], || {
            let settings = Settings { cache: None, libraries: vec![toolkit()], ..Settings::from_env() };
            assert_eq!(open(&settings, &[]).unwrap_or_else(|e| panic!("{e}")).captures(), captures);
        });
    }
}

#[test]
fn products_by_cublas() {
    in_child("products_by_cublas", &[], || {
        let (device, _) = Device::open("cuda", &[], &settings()).unwrap_or_else(|e| panic!("{e}"));
        let gpu = gpu(&device);
        assert_eq!(products::check(&device, |product| gpu.product(product)), Ok(()));
        let searches = ask("libcublasLt.so.13", "fake_searches");
        assert_eq!(products::check(&device, |product| gpu.product(product)), Ok(()));
        assert_eq!(ask("libcublasLt.so.13", "fake_searches"), searches, "an algorithm is searched once");
        // An empty sum, and an empty result.
        let (a, _) = products::matrix(&device, DType::F32, 3, 3, 1);
        let (out, _) = products::matrix(&device, DType::F32, 3, 3, 1);
        let at = Pointer::from(&a);
        let empty = Product {
            count: 1,
            shared: [false; 2],
            rows: 3,
            cols: 3,
            inner: 0,
            a: Factor::Plain(at),
            b: Factor::Plain(at),
            c: None,
            out: Pointer::from(&out),
        };
        gpu.product(&empty);
        assert_eq!(read(&out), [0.0; 9]);
        gpu.product(&Product { c: Some(at), ..empty });
        assert_eq!(read(&out), read(&a));
        gpu.product(&Product { rows: 0, ..empty });
        assert_eq!(read(&out), read(&a));
        // Addresses that are not those of whole allocations.
        let one = Product {
            rows: 1,
            cols: 1,
            inner: 2,
            a: Factor::Plain(at.offset(1)),
            out: Pointer::from(&out).offset(3),
            ..empty
        };
        gpu.product(&one);
        let x = read(&a);
        assert_eq!(read(&out)[3], x[1] * x[0] + x[2] * x[1]);
        let wrong = panic_of(|| gpu.product(&Product { a: Factor::Plain(at.cast(DType::Bf16)), ..empty }));
        assert_eq!(wrong, "a product of bf16 and f32, with f32 added, into f32");
    });
}

/// The device keeps its first failure, and later calls do not panic.
#[test]
fn a_lost_gpu_is_an_error() {
    in_child("a_lost_gpu_is_an_error", &[], || {
        let device = device();
        let gpu = gpu(&device);
        let mut x = Buffer::new_on(&device, Spec::new(DType::F32, &[3])).expect("room");
        let add = || {
            let args = [Arg::from(&x), Arg::F32(1.0), 3.into()];
            gpu.launch(&FILL.kernel("add", DType::F32), Grid::new(1, 32), &args);
        };
        gpu.begin_capture();
        add();
        let recording = gpu.end_capture();
        ask("libcuda.so", "fake_lose");
        let failure = x.read_f64().expect_err("a lost GPU");
        let said = failure.to_string();
        let expected = "Fake GPU cannot copy to the host: an illegal memory access was encountered (the environment \
                        variables CUDA_LAUNCH_BLOCKING=1 and LTM_CUDA_CAPTURE=0 show which launch fails)";
        assert_eq!((failure.kind, said.as_str()), (ErrorKind::Failure, expected));
        add();
        recording.launch();
        gpu.begin_capture();
        drop(gpu.end_capture());
        assert_eq!((gpu.finish().err(), gpu.free_bytes()), (Some(failure.clone()), 0));
        assert_eq!((gpu.alloc(8).err(), x.on_host().err()), (Some(failure.clone()), Some(failure)));
        x.clear();
        x.write(&[1.0f32; 3]);
    });
}
