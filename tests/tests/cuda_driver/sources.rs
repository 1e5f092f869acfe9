//! Where kernels come from: NVIDIA's libraries, the compiler, its cache, and files of compiled kernels.

use crate::{FILL, error, folder, open, settings};
use engine::Device;
use engine::cuda::{Arch, Module, Settings, compile_file};
use engine::probe::{State, probe};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tests::driver::{in_child, loader_path, toolkit};

static LATER_FILL: Module = Module::new("fill", "extern \"C\" __global__ void fill(float* x, float value, int n) {}\n");
static BAD: Module = Module::new("bad", "#error\nextern \"C\" __global__ void bad() {}\n");

#[test]
fn no_compiler_and_no_file() {
    in_child("sources::no_compiler_and_no_file", &[], || {
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
        in_child("sources::two_copies_of_a_library", &[("LD_LIBRARY_PATH", &loader_path(&other))], || {
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
    in_child("sources::the_first_folder_with_a_library_is_used", &[], || {
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
    in_child("sources::kernels_are_compiled_once", &[("FAKE_COMPILATIONS", &variable)], || {
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
    in_child("sources::kernels_from_a_file", &[], || {
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
    in_child("sources::code_for_an_older_gpu_of_its_kind_runs", &[("FAKE_CAPABILITY", "89")], || {
        let path = folder.join("kernels");
        compile_file(&[&FILL], &[Arch::OLDEST, Arch::new(8, 6)], &settings(), &path).unwrap_or_else(|e| panic!("{e}"));
        open(&Settings { kernels: Some(path), ..settings() }, &[&FILL]).unwrap_or_else(|e| panic!("{e}"));
    });
}

/// A compiler that is older than the GPU compiles for an older GPU of its kind.
#[test]
fn a_gpu_that_the_compiler_does_not_know() {
    let folder = folder("target");
    let name = "sources::a_gpu_that_the_compiler_does_not_know";
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

/// For the GPUs of RTX 30 and 40 and both kinds of Blackwell. Of all kernels only attention spills there, window attention
/// only with heads of more than 32 numbers; the rest, half of the time, is left out. NVRTC compiles one file at a time, so
/// `.ci/nvrtc` runs this beside the next test, in a process of its own. Both take the same time.
#[test]
#[ignore = "needs NVRTC; .ci/nvrtc runs it"]
fn attention_compiles_for_other_gpus() {
    let mut modules = kernels::registry::modules();
    modules.retain(|module| module.name.ends_with("attention"));
    assert_eq!(modules.len(), 3, "window, cross and ring attention");
    let wide = |sizes: &'static [usize]| &sizes[sizes.len() / 2..];
    let modules = modules.iter().map(|m| &*Box::leak(Module::new(m.name, m.source).with_sizes(wide(m.sizes)).into()));
    let modules: Vec<&Module> = modules.collect();
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
