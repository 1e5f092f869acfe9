// Builds the simulated libraries. The tests of the backend and those of the program include this file.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Makes a folder with `driver` and `toolkit` from the files in `sources`.
///
/// # Panics
/// If g++ refuses them.
pub fn build(sources: &Path, folder: &Path) {
    let driver = folder.join("driver/libcuda.so");
    for (source, part, name) in [
        ("cuda.cpp", "driver", "libcuda.so"),
        ("nvrtc.cpp", "toolkit", "libnvrtc.so"),
        ("cublaslt.cpp", "toolkit", "libcublasLt.so"),
    ] {
        fs::create_dir_all(folder.join(part)).expect("a folder for the simulated libraries");
        let mut command = Command::new("g++");
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Werror"]).arg(format!("-Wl,-soname,{name}"));
        command.arg(sources.join(source)).arg("-o").arg(folder.join(part).join(name));
        if source == "cublaslt.cpp" {
            command.arg(&driver);
        }
        let output = command.output().expect("g++ compiles the simulated libraries");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
