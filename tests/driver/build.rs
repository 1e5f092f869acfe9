// Builds the stand-ins. Included by the tests of the backend and by those of the program.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes a folder with `driver`, `toolkit` and `nvcc` from the files in `sources`.
///
/// # Panics
/// If g++ refuses them.
pub fn build(sources: &Path, folder: &Path) {
    if folder.exists() {
        fs::remove_dir_all(folder).expect("the folder of an earlier run");
    }
    for part in ["driver", "toolkit"] {
        fs::create_dir_all(folder.join(part)).expect("a folder for the stand-ins");
    }
    for (source, library) in [
        ("cuda.cpp", "driver/libcuda.so"),
        ("nvrtc.cpp", "toolkit/libnvrtc.so"),
        ("cublaslt.cpp", "toolkit/libcublasLt.so"),
    ] {
        let (library, name) = (folder.join(library), library.split('/').next_back().unwrap_or_default());
        let mut command = Command::new("g++");
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Werror"]).arg(format!("-Wl,-soname,{name}"));
        command.arg(sources.join(source)).arg("-o").arg(library);
        if source == "cublaslt.cpp" {
            command.arg(folder.join("driver/libcuda.so"));
        }
        let output = command.output().expect("g++ compiles the stand-ins");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let nvcc = folder.join("nvcc");
    fs::copy(sources.join("nvcc"), &nvcc).expect("a copy of the script");
}
