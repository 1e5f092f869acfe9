//! Tests the real CUDA backend with simulated NVIDIA libraries: possible failures, sources of kernels, and the order of
//! copies, launches and captures.

use engine::cuda::{Arch, Arg, Factor, Gpu, Grid, Module, Pointer, Product, Settings, compile_file};
use engine::probe::{State, probe};
use engine::{Buffer, DType, Device, ErrorKind, Result, Spec};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::driver::{ask, in_child, loader_path, panic_of, toolkit};
use tests::products;
use tests::shim::gpu;

static FILL: Module = Module::new(
    "fill",
    "//! fill 8 4 4\n//! add 8 4 4\n\
     extern \"C\" __global__ void fill(float* x, float value, int n) {}\n\
     extern \"C\" __global__ void add(float* x, float value, int n) {}\n",
);
static LATER_FILL: Module = Module::new("fill", "extern \"C\" __global__ void fill(float* x, float value, int n) {}\n");
static BAD: Module = Module::new("bad", "#error\nextern \"C\" __global__ void bad() {}\n");

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
fn no_compiler_and_no_file() {
    in_child("no_compiler_and_no_file", &[], || {
        // A machine with a CUDA toolkit has NVRTC anyway.
        let found = probe(&Settings::default(), &Device::CPU);
        let lacks = found.iter().any(|f| f.part == "NVRTC" && f.state == State::Missing);
        let expected = "NVRTC, which compiles the kernels, is missing: libnvrtc.so of CUDA 12 or 13 is not found: name its \
                        folder in LTM_CUDA_LIBRARIES, or a file of compiled kernels in LTM_CUDA_KERNELS";
        assert!(!lacks || error(&Settings::default(), &[&FILL]) == expected);
    });
}

/// cudarc asks for the name without a version first, so another file on the loader's path would win over the one that the
/// user named.
#[test]
fn two_copies_of_a_library() {
    let folder = folder("copies");
    for (name, part) in [("libnvrtc.so", "NVRTC"), ("libcublasLt.so", "cuBLASLt")] {
        let other = folder.join(name);
        fs::create_dir_all(&other).expect("a folder");
        in_child("two_copies_of_a_library", &[("LD_LIBRARY_PATH", &loader_path(&other))], || {
            let file = format!("{name}.13");
            fs::copy(toolkit().join(name), other.join(&file)).expect("a copy");
            symlink(&file, other.join(name)).expect("a link");
            let mut copies = [toolkit(), other.clone()].map(|folder| folder.join(&file).display().to_string());
            copies.sort();
            let said = format!("two copies of {name} are loaded, {} and {}: ", copies[0], copies[1]);
            let refused = error(&settings(), &[&FILL]);
            assert!(refused.starts_with(&said) && refused.contains("out of LTM_CUDA_LIBRARIES; for"), "{refused}");
            let found = probe(&settings(), &Device::CPU);
            let found = found.into_iter().find(|f| f.part == part).expect("a finding");
            assert_eq!((found.state, found.text), (State::Missing, refused));
        });
    }
}

#[test]
fn the_first_folder_with_a_library_is_used() {
    let folder = folder("folders");
    in_child("the_first_folder_with_a_library_is_used", &[], || {
        for name in ["libnvrtc.so", "libcublasLt.so"] {
            fs::copy(toolkit().join(name), folder.join(format!("{name}.13"))).expect("a copy");
        }
        let libraries = vec!["/nowhere".into(), toolkit(), folder.clone()];
        let settings = Settings { libraries, ..Settings::default() };
        open(&settings, &[&FILL]).unwrap_or_else(|e| panic!("{e}"));
        let file = |part| probe(&settings, &Device::CPU).into_iter().find(|f| f.part == part).expect("a finding").text;
        for part in ["NVRTC", "cuBLASLt"] {
            assert!(file(part).contains(&toolkit().display().to_string()), "{}", file(part));
        }
    });
}

#[test]
fn kernels_are_compiled_once() {
    let folder = folder("cache");
    let compilations = folder.join("compilations");
    let variable = compilations.to_str().expect("a path in UTF-8").to_string();
    in_child("kernels_are_compiled_once", &[("FAKE_COMPILATIONS", &variable)], || {
        let count = || fs::read(&compilations).map_or(0, |letters| letters.len());
        let cache = folder.join("a/b");
        let settings = Settings { cache: Some(cache.clone()), ..settings() };
        for _ in 0..2 {
            open(&settings, &[&FILL]).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(count(), 2, "f32 and bf16");
        }
        let files: Vec<PathBuf> = fs::read_dir(&cache).expect("the cache").flatten().map(|e| e.path()).collect();
        assert_eq!(files.len(), 2, "{files:?}");
        // A damaged file counts as missing and is written again.
        fs::write(&files[0], b"kernels2 ").expect("a damaged file");
        for _ in 0..2 {
            open(&settings, &[&FILL]).expect("kernels compiled anew");
            assert_eq!(count(), 3);
        }
        // Another source has another name.
        open(&settings, &[&LATER_FILL]).map(drop).expect_err("a source without kernels of the simulated compiler");
        assert_eq!(count(), 5);
        // A cache that cannot be written is ignored.
        let blocked = Settings { cache: Some(compilations.join("x")), ..settings };
        open(&blocked, &[&FILL]).expect("kernels without a cache");
        assert_eq!(count(), 7);
        let said = error(&blocked, &[&BAD]);
        assert_eq!(said, "NVRTC 13.0 cannot compile bad (STORAGE=float) for sm_90a: m.cu(1): error: not today");
    });
}

#[test]
fn kernels_from_a_file() {
    let folder = folder("file");
    in_child("kernels_from_a_file", &[], || {
        let path = folder.join("kernels");
        let file = Settings { kernels: Some(path.clone()), ..settings() };
        let said = |module| {
            let said = error(&file, &[module]);
            let place = format!("LTM_CUDA_KERNELS = {}: ", path.display());
            said.strip_prefix(&place).unwrap_or_else(|| panic!("{said}")).to_string()
        };
        let endless = Settings { kernels: Some("/dev/zero".into()), ..settings() };
        let refused = error(&endless, &[&FILL]);
        assert!(refused.starts_with("LTM_CUDA_KERNELS = /dev/zero: /dev/zero is not a regular file"), "{refused}");
        fs::write(&path, b"?").expect("a file");
        assert_eq!(said(&FILL), "not a file of compiled kernels of this version of the program");
        compile_file(&[&FILL, &BAD], &[Arch::OLDEST], &file, &path).expect_err("a kernel that is wrong");
        assert_eq!(fs::read(&path).expect("the old file"), b"?");

        let make = |archs| compile_file(&[&FILL], archs, &file, &path).unwrap_or_else(|e| panic!("{e}"));
        let made = make(&[Arch::OLDEST]);
        assert_eq!((made.compiler.as_str(), made.kernels), ("NVRTC 13.0", 4), "the engine's own with it");
        assert_eq!(said(&FILL), "holds kernels for sm_80, but this GPU needs sm_90a");
        let made = make(&Arch::USUAL);
        assert_eq!((made.kernels, made.bytes as u64), (16, fs::metadata(&path).expect("a file").len()));
        assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 1, "nothing beside the file");
        for (module, name) in [(&LATER_FILL, "fill"), (&BAD, "bad")] {
            let lacks = format!("lacks {name} (STORAGE=float) for sm_90a of this version of the program");
            assert_eq!(said(module), lacks);
        }
        let gpu = open(&file, &[&FILL]).unwrap_or_else(|e| panic!("{e}"));
        let software = gpu.software();
        let hash = software.compiler.strip_prefix("compiled file ").expect("the kind of compiler");
        assert!(hash.len() == 32 && u128::from_str_radix(hash, 16).is_ok(), "{software:?}");
        let found = probe(&file, &Device::Cuda(gpu));
        let kernels = found.iter().find(|f| f.part == "compiled kernels").expect("a file");
        assert!(kernels.text.contains("16 kernels for sm_80, sm_90a, sm_100, sm_120"), "{found:?}");
    });
}

#[test]
fn code_for_an_older_gpu_of_its_kind_runs() {
    let folder = folder("older");
    in_child("code_for_an_older_gpu_of_its_kind_runs", &[("FAKE_CAPABILITY", "89")], || {
        let path = folder.join("kernels");
        compile_file(&[&FILL], &[Arch::OLDEST, Arch::new(8, 6)], &settings(), &path).unwrap_or_else(|e| panic!("{e}"));
        open(&Settings { kernels: Some(path), ..settings() }, &[&FILL]).unwrap_or_else(|e| panic!("{e}"));
    });
}

/// A compiler that is older than the GPU compiles for an older GPU of its kind.
#[test]
fn a_gpu_that_the_compiler_does_not_know() {
    let folder = folder("target");
    let name = "a_gpu_that_the_compiler_does_not_know";
    let variables = |gpu, archs| [("FAKE_CAPABILITY", gpu), ("FAKE_ARCHS", archs)];
    for (gpu, archs, chosen) in [
        ("89", "75 80 86 87 90 120", "fill-sm_86-"),
        ("103", "80 90 100 101 120", "fill-sm_100-"),
        ("90", "80 90", "fill-sm_90a-"),
    ] {
        in_child(name, &variables(gpu, archs), || {
            open(&Settings { cache: Some(folder.clone()), ..settings() }, &[&FILL]).unwrap_or_else(|e| panic!("{e}"));
            let mut files = fs::read_dir(&folder).expect("the cache").flatten();
            assert!(files.all(|file| file.file_name().to_string_lossy().starts_with(chosen)), "{chosen}");
        });
    }
    for (gpu, archs, needs) in [
        ("120", "80 90 100", "sm_120: name the folder of NVRTC from CUDA 12.8 or later in LTM_CUDA_LIBRARIES"),
        ("110", "80 90 120", "sm_110: name the folder of NVRTC from CUDA 13.0 or later in LTM_CUDA_LIBRARIES"),
        ("80", "90 100", "sm_80: name the folder of NVRTC from CUDA 12 or 13 in LTM_CUDA_LIBRARIES"),
    ] {
        in_child(name, &variables(gpu, archs), || {
            assert_eq!(error(&settings(), &[&FILL]), format!("NVRTC 13.0 cannot compile for {needs}"));
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

/// Compiles with NVIDIA's own NVRTC, in the folders that the environment variable names. A few registers may spill, many may
/// not.
fn compile_for_gpus(modules: &[&'static Module], archs: &[&str], path: &Path) {
    let archs: Vec<Arch> = archs.iter().map(|arch| arch.parse().expect("an architecture")).collect();
    let made = compile_file(modules, &archs, &Settings::from_env(), path).unwrap_or_else(|e| panic!("{e}"));
    assert!(made.compiler.starts_with("NVRTC"), "{}", made.compiler);
    println!("{:#?}", made.spills);
    assert!(most_spilled(&made.spills) < Some(64), "{:#?}", made.spills);
}

/// The most bytes per thread that a kernel spills.
fn most_spilled(spills: &[String]) -> Option<u32> {
    let bytes = |line: &String| line.split_once(" bytes spill stores")?.0.rsplit(' ').next()?.parse::<u32>().ok();
    spills.iter().map(|line| bytes(line).expect("a number of bytes")).max()
}

/// For the GPUs of RTX 30 and 40 and both kinds of Blackwell. Of all kernels only attention spills on any GPU; the others, two
/// fifths of the time, are left out. NVRTC compiles one file at a time, so `.ci/nvrtc` runs this beside the next test, in
/// a process of its own.
#[test]
#[ignore = "needs NVRTC; .ci/nvrtc runs it"]
fn attention_compiles_for_other_gpus() {
    let mut modules = kernels::registry::modules();
    modules.retain(|module| module.name.ends_with("attention"));
    assert_eq!(modules.len(), 3, "window, cross and ring attention");
    compile_for_gpus(&modules, &["sm_86", "sm_89", "sm_100", "sm_120"], &folder("nvrtc-others").join("kernels"));
}

/// For an A100 and an H100.
#[test]
#[ignore = "needs NVRTC; .ci/nvrtc runs it"]
fn every_kernel_compiles_at_run_time() {
    let path = folder("nvrtc").join("kernels");
    compile_for_gpus(&kernels::registry::modules(), &["sm_80", "sm_90a"], &path);
    let settings = Settings::from_env();
    // 64 numbers per thread do not fit into 32 registers.
    static SPILLS: Module = Module::new(
        "spills",
        "extern \"C\" __global__ void __launch_bounds__(1024, 2) k(const float* x, float* y) {
            float v[64];
            for (int r = 0; r < 9; r++)
                #pragma unroll
                for (int i = 0; i < 64; i++) v[i] = (r ? v[i] * v[(i + 7) % 64] : 0) + x[64 * threadIdx.x + i + r];
            #pragma unroll
            for (int i = 0; i < 64; i++) y[64 * threadIdx.x + i] = v[i];
        }",
    );
    let spills = compile_file(&[&SPILLS], &Arch::USUAL[..1], &settings, &folder("spills").join("kernels"));
    assert!(most_spilled(&spills.expect("it compiles").spills) > Some(64));
    let found = probe(&Settings { kernels: Some(path), ..settings }, &Device::CPU);
    assert!(found.iter().any(|f| f.part == "compiled kernels" && f.text.contains("sm_90a")), "{found:?}");
}
