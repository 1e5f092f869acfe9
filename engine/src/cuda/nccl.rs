//! NCCL, loaded at run time: messages between the GPUs of several processes.

use super::gpus::{EXCHANGE, Watch};
use super::libraries::load;
use super::{Gpu, Grid, Pointer, Settings};
use crate::collective::{Exchange, halving};
use crate::{Buffer, DType, Device, Error, Result, Spec};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The library's file. NVIDIA's packages have no link without the version.
const FILE: &str = "libnccl.so.2";

/// The oldest version, 2.14.0, which brought communicators that do not block: only these can be given up safely.
const OLDEST: c_int = 21400;

/// The result of a function that is done.
const DONE: c_int = 0;

/// The result of a function that has begun and goes on.
const BEGUN: c_int = 7;

/// Element types.
const UINT8: c_int = 1;
const FLOAT32: c_int = 7;

/// How often the caller is asked whether to go on waiting.
const PAUSE: Duration = Duration::from_millis(100);

/// How long the last messages may take.
const LAST: Duration = Duration::from_secs(3);

/// What the communicators of one group know it by.
pub(super) type Id = [u8; 128];

#[repr(C)]
struct UniqueId(Id);

/// `ncclConfig_t` of 2.14. Later versions read as much of it as its first field says, and take defaults for the rest.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: c_int,
    blocking: c_int,
}

/// `ncclComm_t`.
type Comm = *mut c_void;

macro_rules! functions {
    ($($name:ident($($arg:ty),*) -> $result:ty;)*) => {
        #[expect(non_snake_case)]
        struct Functions {
            $($name: unsafe extern "C" fn($($arg),*) -> $result,)*
        }

        #[expect(non_snake_case)]
        impl Functions {
            /// The functions of a library, or the name of the one that it lacks.
            fn of(library: &libloading::Library) -> std::result::Result<Self, &'static str> {
                $(
                    // SAFETY: the types are those of nccl.h.
                    let found = unsafe { library.get(concat!(stringify!($name), "\0").as_bytes()) };
                    let $name = *found.map_err(|_| stringify!($name))?;
                )*
                Ok(Self { $($name,)* })
            }
        }
    };
}

functions! {
    ncclGetVersion(*mut c_int) -> c_int;
    ncclGetUniqueId(*mut UniqueId) -> c_int;
    ncclCommInitRankConfig(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> c_int;
    ncclCommFinalize(Comm) -> c_int;
    ncclCommDestroy(Comm) -> c_int;
    ncclCommAbort(Comm) -> c_int;
    ncclCommGetAsyncError(Comm, *mut c_int) -> c_int;
    ncclGetErrorString(c_int) -> *const c_char;
    ncclGetLastError(Comm) -> *const c_char;
    ncclGroupStart() -> c_int;
    ncclGroupEnd() -> c_int;
    ncclSend(*const c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;
    ncclRecv(*mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;
    ncclBroadcast(*const c_void, *mut c_void, usize, c_int, c_int, Comm, *mut c_void) -> c_int;
}

/// The library.
#[derive(Clone)]
pub(super) struct Library {
    functions: Arc<Functions>,
    version: c_int,
}

impl Library {
    /// Finds and loads the library: by its name, then in the folders of the settings, and beside them, where NVIDIA's Python
    /// packages have it.
    ///
    /// # Errors
    /// If there is none, it lacks a function, or it is too old.
    pub fn load(settings: &Settings) -> Result<Self> {
        let beside = |folder: &PathBuf| [folder.join(FILE), folder.join("../../nccl/lib").join(FILE)];
        let paths: Vec<PathBuf> = [FILE.into()].into_iter().chain(settings.libraries.iter().flat_map(beside)).collect();
        // SAFETY: when loaded, NVIDIA's libraries only set up their own memory.
        let mut found =
            paths.iter().filter_map(|path| unsafe { libloading::Library::new(path) }.ok().map(|l| (l, path)));
        let Some((library, path)) = found.next() else {
            let damaged = paths.iter().filter(|path| path.exists()).find_map(|path| load(path).err());
            let why = damaged.unwrap_or_else(|| format!("{FILE} is not found"));
            return Err(Error::device(format!(
                "several processes with GPUs need NCCL, but {why}: install it, or name its folder in {}",
                Settings::LIBRARIES
            )));
        };
        let lacks = |what| Error::device(format!("{} lacks {what}: NCCL 2.14 or later is needed", path.display()));
        let functions = Arc::new(Functions::of(&library).map_err(lacks)?);
        // Its threads run to the end.
        std::mem::forget(library);
        let mut version = 0;
        // SAFETY: it writes a number.
        let told = unsafe { (functions.ncclGetVersion)(&raw mut version) };
        let library = Self { functions, version };
        library.check("tell its version", told)?;
        if version < OLDEST {
            let (path, version) = (path.display(), library.version_text());
            return Err(Error::device(format!("{path} is NCCL {version}: 2.14 or later is needed")));
        }
        Ok(library)
    }

    /// An id for a new group of communicators.
    ///
    /// # Errors
    /// If the library finds no network.
    pub fn id(&self) -> Result<Id> {
        let mut id = UniqueId([0; 128]);
        // SAFETY: it writes the id.
        self.check("make an id", unsafe { (self.functions.ncclGetUniqueId)(&raw mut id) })?;
        Ok(id.0)
    }

    /// The version, e.g. `2.27.3`.
    fn version_text(&self) -> String {
        // Before 2.9 a version had two digits less.
        let major = if self.version < 10_000 { 1000 } else { 10_000 };
        format!("{}.{}.{}", self.version / major, self.version % major / 100, self.version % 100)
    }

    /// An error, unless a function has done its work or begun it.
    fn check(&self, what: &str, result: c_int) -> Result<()> {
        if matches!(result, DONE | BEGUN) {
            return Ok(());
        }
        // SAFETY: both functions return text that ends with a zero byte, or null.
        let [kind, last] = unsafe {
            let last = (self.functions.ncclGetLastError)(std::ptr::null_mut());
            [(self.functions.ncclGetErrorString)(result), last].map(|text| {
                if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
            })
        };
        let details =
            if last.trim().is_empty() { String::new() } else { format!(", {}", last.trim().replace('\n', " ")) };
        let version = self.version_text();
        Err(Error::new(format!("NCCL {version} cannot {what}: {kind}{details}")))
    }
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NCCL {}", self.version_text())
    }
}

/// A communicator: a GPU of this process among those of others. Its work goes to the GPU's stream, so it waits for what was
/// launched before. After an error it is given up.
#[derive(Debug)]
pub(super) struct Nccl {
    library: Library,
    /// Null once it is given up.
    comm: Comm,
    gpu: Arc<dyn Gpu>,
    /// For what another process has sent.
    received: Buffer,
}

// SAFETY: any thread may use a communicator, if calls do not overlap; all take `&mut self`.
unsafe impl Send for Nccl {}

impl Nccl {
    /// Joins the communicators of the other processes, each number `rank` of `size`, with one id.
    ///
    /// # Errors
    /// If the library refuses, and those of `watch`.
    pub fn join(library: &Library, gpu: Arc<dyn Gpu>, rank: usize, size: usize, id: Id, watch: Watch) -> Result<Self> {
        let what = "join the other processes";
        let mut config = Config { size: size_of::<Config>(), magic: 0xcafe_beef, version: OLDEST, blocking: 0 };
        // A thread of the library writes it, perhaps after an error.
        let comm: &'static AtomicPtr<c_void> = Box::leak(Box::default());
        let (rank, size) = (rank as c_int, size as c_int);
        gpu.with_stream(&mut |_| {
            // SAFETY: it writes the communicator and reads the rest. The context is current.
            let begun = unsafe {
                (library.functions.ncclCommInitRankConfig)(comm.as_ptr(), size, UniqueId(id), rank, &raw mut config)
            };
            library.check(what, begun)
        })?;
        let comm = comm.load(Ordering::Acquire);
        let mut nccl = Self { library: library.clone(), comm, gpu, received: Buffer::empty() };
        nccl.settle(what, false, watch)?;
        Ok(nccl)
    }

    /// Sums as [`Collective::sum`](crate::Collective::sum) does, as number `rank` of `size`.
    ///
    /// # Errors
    /// If a message fails, and those of `watch`.
    pub fn sum(&mut self, xs: &[&mut Buffer], rank: usize, size: usize, watch: Watch) -> Result<()> {
        let what = "send and receive";
        let halvings = xs.iter().map(|x| (f32s(x), halving(rank, size, x.len())));
        let halvings: Vec<(Pointer, Vec<Exchange>)> = halvings.collect();
        for number in 0..halvings.first().map_or(0, |(_, exchanges)| exchanges.len()) {
            let mut messages = Vec::new();
            let mut end = 0;
            for (x, exchanges) in &halvings {
                let Exchange { peer, give, take, adds } = &exchanges[number];
                // What is added lies beside the other sums, each at a multiple of 16 bytes.
                let place = adds.then_some(end);
                end += take.len().next_multiple_of(4);
                let [from, own] = [give, take].map(|range| (x.offset(range.start), range.len()));
                messages.push(Message { peer: *peer as c_int, from, own, place });
            }
            let room = Spec::new(DType::F32, &[end]);
            if number == 0 && self.received.capacity() < room.bytes() {
                self.received = Buffer::new_on(&Device::Cuda(self.gpu.clone()), room)?;
            }
            let received = Pointer { address: self.received.address(), dtype: DType::F32 };
            let into = |m: &Message| m.place.map_or(m.own.0, |at| received.offset(at)).address as *mut c_void;
            self.launch(what, watch, |f, comm, stream| {
                // SAFETY: the addresses are those of as many numbers in the memory of the GPU, whose context is current and whose
                // stream this is. Whatever uses or frees them comes later on the stream.
                unsafe {
                    let mut results = vec![(f.ncclGroupStart)()];
                    for m in &messages {
                        let (from, numbers) = (m.from.0.address as *const c_void, m.from.1);
                        results.push((f.ncclSend)(from, numbers, FLOAT32, m.peer, comm, stream));
                        results.push((f.ncclRecv)(into(m), m.own.1, FLOAT32, m.peer, comm, stream));
                    }
                    results.push((f.ncclGroupEnd)());
                    results
                }
            })?;
            for (m, place) in messages.iter().filter_map(|m| Some((m, m.place?))) {
                let ((own, n), received) = (m.own, received.offset(place));
                let kernel = EXCHANGE.kernel("add_received", DType::F32);
                self.gpu.launch(&kernel, Grid::covering(n, 256), &[own.into(), received.into(), n.into()]);
            }
        }
        self.settle(what, true, watch)
    }

    /// Replaces `x`, f32, by that of process 0.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn broadcast(&mut self, x: &Buffer, watch: Watch) -> Result<()> {
        let (at, bytes) = (f32s(x).address, x.spec().bytes());
        self.launch("broadcast", watch, |f, comm, stream| {
            // SAFETY: as in `sum`.
            vec![unsafe { (f.ncclBroadcast)(at as *const c_void, at as *mut c_void, bytes, UINT8, 0, comm, stream) }]
        })?;
        self.settle("broadcast", true, watch)
    }

    /// Makes calls, one after the other, and waits until the library has launched their work.
    fn launch(
        &mut self,
        what: &str,
        watch: Watch,
        calls: impl Fn(&Functions, Comm, *mut c_void) -> Vec<c_int>,
    ) -> Result<()> {
        if self.comm.is_null() {
            return Err(Error::new(format!("NCCL cannot {what} after an error")));
        }
        let (library, comm) = (&self.library, self.comm);
        let made = self.gpu.with_stream(&mut |stream| {
            let results = calls(&library.functions, comm, stream);
            results.into_iter().try_for_each(|result| library.check(what, result))
        });
        if made.is_err() {
            self.give_up();
        }
        made?;
        // Until then nothing else may go to the stream.
        self.settle(what, false, watch)
    }

    /// Waits until the library has done what it began, and if `all`, until the GPU has done everything.
    fn settle(&mut self, what: &str, all: bool, watch: Watch) -> Result<()> {
        let ended = wait(watch, || Ok(self.is_ready(what)? && (!all || self.gpu.is_done()?)));
        if ended.is_err() {
            self.give_up();
        }
        ended
    }

    /// Whether the library has done what it began.
    fn is_ready(&self, what: &str) -> Result<bool> {
        let mut state = DONE;
        // SAFETY: the communicator exists. It writes a number.
        let asked = unsafe { (self.library.functions.ncclCommGetAsyncError)(self.comm, &raw mut state) };
        self.library.check(what, asked)?;
        self.library.check(what, state)?;
        Ok(state == DONE)
    }

    /// Stops the communicator's work on the GPU, which would wait for ever.
    pub fn give_up(&mut self) {
        let comm = std::mem::replace(&mut self.comm, std::ptr::null_mut());
        if !comm.is_null() {
            // SAFETY: the communicator existed, and is not used again.
            unsafe { (self.library.functions.ncclCommAbort)(comm) };
        }
    }
}

impl Drop for Nccl {
    /// Other processes may not have got the last message yet.
    fn drop(&mut self) {
        if self.comm.is_null() {
            return;
        }
        let late = |waited| if waited > LAST { Err(Error::new("")) } else { Ok(()) };
        let (library, comm) = (self.library.clone(), self.comm);
        let what = "end";
        // SAFETY: the communicator exists.
        let finalize = || library.check(what, unsafe { (library.functions.ncclCommFinalize)(comm) });
        if self.gpu.with_stream(&mut |_| finalize()).is_err() || self.settle(what, false, &late).is_err() {
            return self.give_up();
        }
        // SAFETY: the communicator exists and is not used again.
        unsafe { (library.functions.ncclCommDestroy)(comm) };
    }
}

/// The numbers that this process and another one send each other: where the first is, and how many there are.
struct Message {
    peer: c_int,
    from: (Pointer, usize),
    /// Those that the other one's are added to or replace.
    own: (Pointer, usize),
    /// Where in the memory for received numbers they wait to be added.
    place: Option<usize>,
}

/// The first of the numbers of a GPU.
fn f32s(x: &Buffer) -> Pointer {
    assert_eq!(x.dtype(), DType::F32, "processes exchange f32");
    x.pointer()
}

/// Waits until it is `done`, unless this fails or `watch` does.
fn wait(watch: Watch, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let (since, mut next) = (Instant::now(), PAUSE);
    while !done()? {
        let waited = since.elapsed();
        if waited > next {
            watch(waited)?;
            next = waited + PAUSE;
        }
        if waited < Duration::from_millis(1) { thread::yield_now() } else { thread::sleep(PAUSE / 2000) }
    }
    Ok(())
}
