//! Compiles the small library that calls oneDNN, if oneDNN is installed.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/onednn.cpp");
    println!("cargo::rustc-check-cfg=cfg(onednn)");
    let library = Path::new(&std::env::var_os("OUT_DIR").expect("a folder for what is built")).join("onednn.so");
    let flags = ["-std=c++17", "-O2", "-shared", "-fPIC", "src/onednn.cpp", "-ldnnl", "-o"];
    let done = Command::new("c++").args(flags).arg(&library).output();
    match done {
        Ok(done) if done.status.success() => {
            println!("cargo::rustc-cfg=onednn");
            println!("cargo::rustc-env=ONEDNN={}", library.display());
        }
        Ok(done) => {
            let why = String::from_utf8_lossy(&done.stderr).lines().next().unwrap_or_default().to_string();
            println!("cargo::warning=without oneDNN: {why}");
        }
        Err(error) => println!("cargo::warning=without oneDNN: c++: {error}"),
    }
}
