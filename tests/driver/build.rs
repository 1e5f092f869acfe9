// Builds the simulated libraries. The tests of the backend and those of the program include this file.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Makes a folder with `driver` and `toolkit` from the files in `sources`. As NVIDIA's, a library is a file with a version
/// in its name, by which the loader knows it, and a link without.
///
/// # Panics
/// If g++ refuses them.
pub fn build(sources: &Path, folder: &Path) {
    // The folder may be that of an earlier build.
    let _ = fs::remove_dir_all(folder);
    let driver = folder.join("driver/libcuda.so");
    for (source, part, name, version) in [
        ("cuda.cpp", "driver", "libcuda.so", "1"),
        ("nvrtc.cpp", "toolkit", "libnvrtc.so", "13"),
        ("cublaslt.cpp", "toolkit", "libcublasLt.so", "13"),
        ("nccl.cpp", "toolkit", "libnccl.so", "2"),
    ] {
        let (part, file) = (folder.join(part), format!("{name}.{version}"));
        fs::create_dir_all(&part).expect("a folder for the simulated libraries");
        let mut command = Command::new("g++");
        command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Werror"]).arg(format!("-Wl,-soname,{file}"));
        command.arg(sources.join(source)).arg("-o").arg(part.join(&file));
        if matches!(source, "cublaslt.cpp" | "nccl.cpp") {
            command.arg(&driver);
        }
        symlink(&file, part.join(name)).expect("a link");
        let output = command.output().expect("g++ compiles the simulated libraries");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
