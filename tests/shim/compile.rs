use super::{Fault, Order};
use engine::cuda::{Arg, Grid, HEADERS, Module, Variant};
use libloading::Library;
use std::ffi::{CStr, CString, c_char};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::{env, fs};

/// A module as a shared object of this process.
pub struct Compiled {
    library: Library,
    lock: &'static Mutex<()>,
}

type Launch = unsafe extern "C" fn(
    entry: *const c_char,
    grid: *const u32,
    order: i32,
    values: *const u64,
    sizes: *const u8,
    count: u32,
) -> *const c_char;

/// A library is built once, and its fibres, shared memory and message are global. So each library builds or launches
/// only once at a time, together with the few that share its lock.
static LOCKS: [Mutex<()>; 32] = [const { Mutex::new(()) }; 32];

/// g++ takes most of the tests' time, and kernels run only briefly, so they are compiled with little optimisation.
const FLAGS: &str = "-std=c++17 -O1 -g1 -fPIC -shared -ffp-contract=off -fno-strict-aliasing -fvisibility=hidden \
                     -fno-gnu-unique -Wall -Wno-unknown-pragmas -Werror";

impl Compiled {
    /// Compiles `module`, or finds what an earlier run compiled from the same text.
    pub fn new(module: &Module, variant: Variant, fault: Option<&Fault>) -> Self {
        let mut files: Vec<(&str, String)> = vec![
            ("kernel.cu", Fault::apply(fault, module.name, module.source)),
            ("main.cpp", main_file(module, variant)),
        ];
        for (name, text) in HEADERS {
            let text = if name == "ptx.cuh" { include_str!("ptx.cuh") } else { text };
            files.push((name, Fault::apply(fault, name, text)));
        }
        // The shim's own header is precompiled.
        static HEADER: OnceLock<PathBuf> = OnceLock::new();
        let header = HEADER.get_or_init(|| {
            let files = [("cuda.h", include_str!("cuda.h").into())];
            built("header", &files, &["-w", "-x", "c++-header", "cuda.h", "-o", "cuda.h.gch"]).0
        });
        let include = format!("-I{}", header.display());
        let (folder, lock) = built(module.name, &files, &[&include, "-o", "kernels.so", "main.cpp"]);
        // SAFETY: the library was made from `cuda.h` and a kernel file, which run nothing when they are loaded.
        let library = unsafe { Library::new(folder.join("kernels.so")) }.expect("a library that g++ made");
        Self { library, lock }
    }

    /// Runs a kernel to its end.
    pub fn launch(&self, entry: &str, grid: Grid, order: Order, args: &[Arg]) -> Result<(), String> {
        let _one = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = CString::new(entry).map_err(|e| e.to_string())?;
        let [x, y, z] = grid.blocks;
        let grid = [x, y, z, grid.threads, grid.shared];
        let (values, sizes): (Vec<u64>, Vec<u8>) =
            args.iter().map(Arg::bits).map(|(value, bytes)| (value, bytes as u8)).unzip();
        // SAFETY: `main_file` defines `shim_launch` with this signature. It reads five numbers of the grid and `count`
        // values and sizes, compares the sizes with the kernel's parameters before it reads a value, and returns null
        // or a message that ends in zero and stays until the next launch. The kernel gets addresses of the shim's heap,
        // whose blocks stay in place. Tests check that it writes only there, by fences around the blocks.
        unsafe {
            let launch = self.library.get::<Launch>(b"shim_launch\0").map_err(|e| e.to_string())?;
            let (values, sizes, count) = (values.as_ptr(), sizes.as_ptr(), args.len() as u32);
            let message = launch(entry.as_ptr(), grid.as_ptr(), order as i32, values, sizes, count);
            if message.is_null() { Ok(()) } else { Err(CStr::from_ptr(message).to_string_lossy().into_owned()) }
        }
    }
}

/// Includes the kernels and calls them by name.
fn main_file(module: &Module, variant: Variant) -> String {
    let defines: String = variant.defines().iter().map(|d| format!("#define {}\n", d.replace('=', " "))).collect();
    let calls: String = module
        .entries()
        .map(|e| format!("    if (!strcmp(entry, \"{e}\")) return shim::launch({e}, grid, order, values, sizes, count), message();\n"))
        .collect();
    format!(
        "#include \"cuda.h\"\n{defines}#include \"kernel.cu\"\n\
         static const char* message() {{ return shim::failure[0] ? shim::failure : nullptr; }}\n\
         extern \"C\" __attribute__((visibility(\"default\"))) const char* shim_launch(const char* entry, \
         const uint32_t* grid, int order, const uint64_t* values, const uint8_t* sizes, uint32_t count) {{\n\
         {calls}    return \"no such kernel\";\n}}\n"
    )
}

/// The folder with these files and the output of g++, kept in the build folder between runs; and the lock for its use.
fn built(name: &str, files: &[(&str, String)], arguments: &[&str]) -> (PathBuf, &'static Mutex<()>) {
    let mut hasher = DefaultHasher::new();
    (files, FLAGS, arguments).hash(&mut hasher);
    let hash = hasher.finish();
    let program = env::current_exe().expect("the test's program");
    let root = program.parent().and_then(Path::parent).expect("its folder").join("shim");
    let folder = root.join(format!("{name}-{hash:016x}"));
    let lock = &LOCKS[hash as usize % LOCKS.len()];
    let _one = lock.lock().unwrap_or_else(PoisonError::into_inner);
    if !folder.exists() {
        let own = folder.with_extension(format!("{}", std::process::id()));
        fs::create_dir_all(&own).expect("a folder to build in");
        files.iter().for_each(|(name, text)| fs::write(own.join(name), text).expect("a file to build"));
        let output = Command::new("g++").current_dir(&own).args(FLAGS.split(' ')).args(arguments).output();
        let output = output.expect("g++ compiles kernels for tests");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "g++ refuses the files in {}:\n{said}", own.display());
        if fs::rename(&own, &folder).is_err() {
            // Another process was faster.
            fs::remove_dir_all(&own).expect("a folder of this process");
        }
    }
    (folder, lock)
}
