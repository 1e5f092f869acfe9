//! NVIDIA's libraries for machines that have none: stand-ins in C++ that the real backend loads in a process of its own.

#[path = "build.rs"]
mod build;

use libloading::Library;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Tells a process that it is the one where this test runs.
const INSIDE: &str = "FAKE_TEST";

/// Runs `body` in a process that finds the stand-ins, with these environment variables set. `name` is the test's. Inside such
/// a process, `body` runs if the variables have these values, and nothing otherwise.
pub fn in_child(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    if let Ok(inside) = env::var(INSIDE) {
        if inside == name && variables.iter().all(|(name, value)| env::var(name).is_ok_and(|set| set == *value)) {
            body();
        }
        return;
    }
    let program = env::current_exe().expect("the test's program");
    let output = Command::new(program)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, name)
        .env("LD_LIBRARY_PATH", folder().join("driver"))
        .envs(variables.iter().copied())
        .output()
        .expect("a process");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// The folder of NVRTC and cuBLASLt.
pub fn toolkit() -> PathBuf {
    folder().join("toolkit")
}

/// What a function of a stand-in returns that takes nothing.
pub fn ask(library: &str, function: &str) -> usize {
    // SAFETY: the library is one of the stand-ins, which the backend has loaded before; the functions that tests ask take
    // nothing and return a number, or nothing that would be looked at.
    unsafe {
        let library = Library::new(library).expect("a library of this process");
        library.get::<extern "C" fn() -> usize>(function.as_bytes()).expect("a function")()
    }
}

/// What `body` says when it panics.
pub fn panic_of(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("a panic");
    *panic.downcast().expect("a text that was put together")
}

/// Where the stand-ins are, compiled once by each program that asks.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let program = env::current_exe().expect("the test's program");
        let name = program.file_name().expect("its name");
        let folder = program.parent().and_then(Path::parent).expect("its folder").join("fake").join(name);
        if env::var_os(INSIDE).is_none() {
            build::build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("driver"), &folder);
        }
        folder
    })
}
