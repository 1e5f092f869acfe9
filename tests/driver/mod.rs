//! Simulates NVIDIA's libraries on machines without them: C++ libraries that the real backend loads in a separate
//! process.

#[path = "build.rs"]
mod build;

use libloading::Library;
use std::env;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Marks the child process of this test.
const INSIDE: &str = "FAKE_TEST";
/// The number of the child process among several, and where they can meet.
const RANK: &str = "FAKE_RANK";
const ADDRESS: &str = "FAKE_ADDRESS";

/// Runs `body` in a child process that finds the simulated libraries, with these environment variables. `name` is the
/// test's name. In the child, `body` runs only if the variables have these values.
pub fn in_child(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    in_processes(name, 1, variables, |_, _| body());
}

/// Runs `body` in as many child processes at once, as [`in_child`]. It gets the number of the process and an address at which
/// they can meet.
pub fn in_processes(name: &str, size: usize, variables: &[(&str, &str)], body: impl FnOnce(usize, &str)) {
    if let Ok(inside) = env::var(INSIDE) {
        if inside == name && variables.iter().all(|(name, value)| env::var(name).is_ok_and(|set| set == *value)) {
            let [rank, address] = [RANK, ADDRESS].map(|name| env::var(name).expect("a variable of the test"));
            body(rank.parse().expect("a number"), &address);
        }
        return;
    }
    let address = free_address();
    let start = |rank: usize| {
        Command::new(env::current_exe().expect("the test's program"))
            .args([name, "--exact", "--nocapture"])
            .env(INSIDE, name)
            .env(RANK, rank.to_string())
            .env(ADDRESS, &address)
            .env("LD_LIBRARY_PATH", folder().join("driver"))
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a process")
    };
    for child in (0..size).map(start).collect::<Vec<_>>() {
        let output = child.wait_with_output().expect("a process");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }
}

/// An address of this machine where nobody listens.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").to_string()
}

/// The folder of NVRTC, cuBLASLt and NCCL.
pub fn toolkit() -> PathBuf {
    folder().join("toolkit")
}

/// The loader's path with the simulated driver and another folder.
pub fn loader_path(folder_too: &Path) -> String {
    format!("{}:{}", folder().join("driver").display(), folder_too.display())
}

/// The result of a function without arguments in a simulated library.
pub fn ask(library: &str, function: &str) -> usize {
    // SAFETY: the library is a simulated one, which the backend has already loaded. The functions that tests call take
    // no arguments and return a number, or a value that is ignored.
    unsafe {
        let library = Library::new(library).expect("a library of this process");
        library.get::<extern "C" fn() -> usize>(function.as_bytes()).expect("a function")()
    }
}

/// The message of `body` when it panics.
pub fn panic_of(body: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("a panic");
    *panic.downcast().expect("a text that was put together")
}

/// The folder of the simulated libraries; each test program compiles them once.
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
