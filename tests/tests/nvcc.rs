//! Every kernel file through NVIDIA's compiler, for the architectures that are supported, with register spills as errors.
//! Ignored unless asked for: the environment variable `NVCC` names the compiler. `.ci/nvcc` gets one and runs this.

use engine::cuda::{HEADERS, Module, PRODUCT};
use kernels::registry::modules;
use rayon::prelude::*;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const ARCHITECTURES: [&str; 2] = ["80", "90a"];

/// What the compiler says against `source`.
fn compile(folder: &Path, defines: &[String], source: &str, architecture: &str) -> Result<(), String> {
    let nvcc = env::var("NVCC").expect("NVCC names the compiler");
    for (name, text) in HEADERS.iter().chain([&("kernel.cu", source)]) {
        fs::write(folder.join(name), text).expect("a file in the temporary folder");
    }
    let output = Command::new(&nvcc)
        .current_dir(folder)
        .args(["-std=c++17", "-O3", "-cubin", "-Xptxas", "-v,-warn-spills,-Werror", "-o", "kernel.cubin", "kernel.cu"])
        .arg(format!("-gencode=arch=compute_{architecture},code=sm_{architecture}"))
        .args(defines.iter().map(|d| format!("-D{d}")))
        .output()
        .unwrap_or_else(|e| panic!("{nvcc}: {e}"));
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn folder(name: &str) -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

#[test]
#[ignore = "needs NVIDIA's compiler; .ci/nvcc runs it"]
fn every_kernel_compiles_without_spills() {
    let all: Vec<&Module> = modules();
    assert!(!all.is_empty());
    let variants = all.into_iter().chain([&PRODUCT]).flat_map(|module| module.variants().map(move |v| (module, v)));
    let jobs: Vec<_> = variants.flat_map(|(module, v)| ARCHITECTURES.map(|arch| (module, v.defines(), arch))).collect();
    jobs.par_iter().enumerate().for_each(|(i, (module, defines, architecture))| {
        compile(&folder(&format!("nvcc-kernels-{i}")), defines, module.source, architecture)
            .unwrap_or_else(|e| panic!("{} ({}) for sm_{architecture}:\n{e}", module.name, defines.join(", ")));
    });
}

/// 64 numbers per thread do not fit into 32 registers.
#[test]
#[ignore = "needs NVIDIA's compiler; .ci/nvcc runs it"]
fn a_spill_is_refused() {
    let source = "#include \"common.cuh\"\n\
        extern \"C\" __global__ void __launch_bounds__(1024, 2) k(const float* x, float* y) {\n\
            float v[64];\n\
            for (int r = 0; r < 9; r++)\n\
        #pragma unroll\n\
            for (int i = 0; i < 64; i++) v[i] = (r ? v[i] * v[(i + 7) % 64] : 0) + x[64 * threadIdx.x + i + r];\n\
        #pragma unroll\n\
            for (int i = 0; i < 64; i++) y[64 * threadIdx.x + i] = v[i];\n\
        }\n";
    let error = compile(&folder("nvcc-spill"), &["STORAGE=float".into()], source, "90a").unwrap_err();
    assert!(error.contains("spill"), "{error}");
}
