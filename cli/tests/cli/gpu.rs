//! GPUs that cannot be used: with `--device cuda` one clear line, with `auto` a note and the CPU. NVIDIA's libraries
//! are simulated.

#[path = "../../../tests/driver/build.rs"]
mod build;

use super::*;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;

/// The folder of the simulated libraries.
fn stand_ins() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("stand-ins");
        build::build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/driver"), &folder);
        folder
    })
}

/// Runs the program with the simulated libraries, configured by `variables`.
fn run(lab: &Lab, line: &str, variables: &[(&str, &str)]) -> Said {
    begin(lab, line, variables)()
}

/// As [`run`], but returns at once a function that waits for the end.
fn begin(lab: &Lab, line: &str, variables: &[(&str, &str)]) -> impl FnOnce() -> Said + use<> {
    let args: Vec<String> = line.split_whitespace().map(str::to_string).collect();
    let mut command = lab.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("LD_LIBRARY_PATH", stand_ins().join("driver")).env("LTM_CUDA_LIBRARIES", stand_ins().join("toolkit"));
    command.env("LTM_CUDA_CACHE", "").env_remove("RUST_BACKTRACE").envs(variables.iter().copied());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    move || Said::of(child.wait_with_output().unwrap(), &args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A command line that trains in the folder `out`.
fn train(out: &str, settings: &str) -> String {
    format!("{} {settings}", train_args(out, &[]).join(" "))
}

/// Kernels of every name, so that the device opens; launching one fails, as it takes no arguments.
const ANY: (&str, &str) = ("FAKE_ANY", "1");
/// The device opens, and then fails.
const LOST: (&str, &str) = ("FAKE_LOST", "1");

/// The tests of the driver check each message; here we check exit code, note and advice.
#[test]
fn surroundings_that_cannot_be() {
    let lab = Lab::new();
    lab.write("damaged", "not kernels");
    let no_gpu = "no CUDA device: the NVIDIA driver is installed but lists no GPU";
    let damaged = "LTM_CUDA_KERNELS = damaged: not a file of compiled kernels";
    for (variables, said, advice) in [
        (&[("FAKE_GPUS", "0")][..], no_gpu, "; --device cpu uses the CPU"),
        (&[("LTM_CUDA_KERNELS", "damaged")], damaged, "; `ltm cuda compile` makes a new file"),
        (&[], "Fake GPU refuses the kernels of", ""),
    ] {
        let run = |device: &str, line: &str| run(&lab, &format!("--device {device} {line}"), variables);
        run("cuda", &train("run", "")).fails(1, &[said]);
        assert!(!lab.path("run").exists(), "{variables:?}");
        let fallen_back = run("auto", &train("run", "")).succeeds();
        let note = format!("note: on the CPU: {said}");
        assert_eq!(fallen_back.err.matches(&note).count(), 1, "{}", fallen_back.context());
        fs::remove_dir_all(lab.path("run")).unwrap();
        assert!(!run("cpu", &train("run", "")).succeeds().err.contains("note: on the CPU"));
        fs::remove_dir_all(lab.path("run")).unwrap();
        run("auto", "doctor").succeeds().says(said);
        run("cuda", "doctor").fails(1, &[said, advice]);
    }
    lab.refuses(2, &[("--device gpu doctor", "gpu | cpu, cuda, auto")]);
}

#[test]
fn a_gpu_that_is_too_small_or_fails() {
    let lab = Lab::new();
    // The memory left besides the workspace of cuBLASLt.
    let memory = |bytes: usize| ((32 << 20) + bytes).to_string();
    let on_cuda = |settings: &str, bytes: usize| {
        let line = format!("--device cuda {}", train("run", settings));
        let said = run(&lab, &line, &[ANY, ("FAKE_MEMORY", &memory(bytes))]);
        assert!(!lab.path("run").exists());
        said
    };
    // With `auto`, the CPU takes over.
    let falls_back = |lab: &Lab, line: &str, bytes: usize, why: &str| {
        let said = run(lab, line, &[ANY, ("FAKE_MEMORY", &memory(bytes))]).succeeds();
        let note = said.err.lines().find(|line| line.starts_with("note: on the CPU: ")).unwrap_or_default();
        assert!(note.contains(why), "{}", said.context());
    };
    for (out, settings, bytes, parts) in [
        ("small", "", 50_000, ["Fake GPU has room for 48.83 KiB", "set train.micro below 2"]),
        ("full", "train.batch=64", 1_000_000, ["Fake GPU has room for 976.56 KiB", "set train.micro below 64"]),
        ("wide", "model.dim=272", 1 << 30, ["heads of width 136", "at most 128"]),
    ] {
        let said = on_cuda(settings, bytes);
        said.fails(1, &[parts[0], parts[1], "; --device cpu"]);
        said.says("on Fake GPU");
        // One step of it is enough.
        let short = format!("train.steps=1 slow.warmup=0 train.eval_every=0 {settings}");
        falls_back(&lab, &train(out, &short), bytes, parts[0]);
        assert!(lab.path(out).join("checkpoints").exists());
    }

    let plan = "plan --set train.batch=64";
    let full = [ANY, ("FAKE_MEMORY", &memory(1_000_000))];
    let said = run(&lab, &format!("--device cuda {plan}"), &full).succeeds();
    said.says("training would not start: ").says("of device memory are needed");
    let said = run(&lab, plan, &full).succeeds();
    assert!(said.err.contains("note: on the CPU: ") && !said.err.contains("would not start"), "{}", said.context());

    // A failing GPU is a one-line error; a bug is a panic with its place.
    let illegal = "Fake GPU cannot copy from the host: an illegal memory access was encountered";
    let line = format!("--device cuda {}", train("run", ""));
    run(&lab, &line, &[ANY, LOST, ("RUST_BACKTRACE", "1")]).fails(1, &[illegal]);
    assert!(!lab.path("run").exists());
    let wrong = run(&lab, &line, &[ANY]);
    assert_eq!(wrong.code, Some(101), "{}", wrong.context());
    wrong.says("panicked at engine/src/cuda/").says("arguments, the kernel has 0 parameters");

    let trained = Lab::trained();
    for (line, bytes, why) in [
        ("eval run --limit 2", 100_000, "device memory are needed"),
        ("generate run --prompt a", 30_000, "Fake GPU"),
        ("replay run --steps 1..2", 50_000, "Fake GPU has room for 48.83 KiB"),
        ("plan --set model.dim=272 model.heads=2", 1 << 30, "heads of width 136"),
    ] {
        let said = run(&trained, &format!("--device cuda {line}"), &[ANY, ("FAKE_MEMORY", &memory(bytes))]);
        said.fails(1, &[why, "; --device cpu"]);
        falls_back(&trained, line, bytes, why);
    }
    run(&trained, "--device cuda verify", &[ANY, LOST]).fails(1, &["cross_attention f32, ", illegal]);
}

#[test]
fn kernels_are_compiled_into_a_file() {
    let lab = Lab::new();
    let compile = "cuda compile --out kernels";
    let made = run(&lab, compile, &[]).succeeds();
    assert_eq!(made.out, "kernels\n");
    made.says("sm_80, sm_90a, sm_100, sm_120 by NVRTC 13.0 | LTM_CUDA_KERNELS=kernels uses them");
    let doctor = run(&lab, "doctor", &[("LTM_CUDA_KERNELS", "kernels"), ANY]).succeeds();
    doctor.says("kernels for sm_80, sm_90a, sm_100, sm_120");
    doctor.says("ltm --device auto computes on Fake GPU, all kernels ready");
    run(&lab, "cuda compile --out kernels --arch sm_75", &[]).fails(2, &["'sm_75' is too old", "sm_80"]);
    run(&lab, "cuda compile --out no/kernels", &[]).fails(1, &["cannot write no/kernels"]);
    assert_eq!(lab.names("."), ["kernels", "text.txt"]);

    // Files that are not libraries in spite of their names.
    fs::create_dir_all(lab.path("garbage")).unwrap();
    lab.write("garbage/libnvrtc.so.13", "no library");
    for (folder, said) in [
        ("nowhere", "nowhere cannot be read: No such file"),
        (".", ". holds no libnvrtc.so"),
        ("garbage", "garbage/libnvrtc.so.13: "),
    ] {
        let variables = [("LTM_CUDA_LIBRARIES", folder), ANY];
        run(&lab, "--device cuda doctor", &variables).fails(1, &["NVRTC, which compiles the kernels", said]);
        run(&lab, compile, &variables).fails(1, &["NVRTC, which compiles the kernels", said]);
        let doctor = run(&lab, "doctor", &variables).succeeds();
        doctor.says(said).says("GPU           not used | computes on the CPU: NVRTC");
    }
    // The program has its own kernel for products.
    let slow = run(&lab, "plan", &[("LTM_CUDA_LIBRARIES", "garbage"), ("LTM_CUDA_KERNELS", "kernels"), ANY]).succeeds();
    slow.says(
        "on Fake GPU; note: without cuBLASLt, matrix products use this program's slow kernel | garbage holds no \
               libcublasLt.so",
    );
}

/// Processes that a launcher started, each with a GPU. One of them reports an error, for all.
#[test]
fn processes_that_do_not_train_together() {
    let lab = Lab::new();
    let line = |settings: &str| format!("--device cuda {}", train("run", settings));
    let number = |rank| [ANY, ("WORLD_SIZE", "2"), ("RANK", rank), ("LOCAL_RANK", rank)];
    run(&lab, &line(""), &number("2"))
        .fails(2, &["a process among several must know its number; set WORLD_SIZE, RANK"]);
    run(&lab, &line(""), &number("0"))
        .fails(2, &["several processes meet at MASTER_ADDR and MASTER_PORT + 1: set them"]);
    // Where process 0 will listen.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let before = (port - 1).to_string();
    let process = |rank, settings: &str| {
        let place = [("MASTER_ADDR", "localhost"), ("MASTER_PORT", before.as_str()), ("FAKE_GPUS", "2")];
        begin(&lab, &line(settings), &[&number(rank)[..], &place].concat())
    };

    let other = process("1", "train.seed=1");
    let first = process("0", "")();
    first.fails(2, &["process 1 differs from process 0 in its settings"]);
    let other = other();
    assert_eq!((other.code, other.err.as_str()), (Some(2), ""), "{}", other.context());

    let batch = "train.batch=1 train.micro=1";
    let (first, other) = (process("0", batch), process("1", batch));
    first().fails(2, &["2 processes cannot share train.batch = 1 in 1 parts of train.micro = 1: use 1"]);
    assert_eq!(other().err, "");

    // A process that is killed: the system closes its connection.
    let first = process("0", "");
    let mut killed = loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) if stream.local_addr().unwrap() != stream.peer_addr().unwrap() => break stream,
            _ => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    killed.write_all(b"together\x02\0\0\0\x01\0\0\0").unwrap();
    drop(killed);
    first().fails(1, &["error: process 1 is gone"]);
    assert!(!lab.path("run").exists());

    // With `auto` a program without MPI refuses, as on a machine without a GPU.
    let auto = run(&lab, &format!("--device auto {}", train("run", "")), &number("0"));
    #[cfg(not(feature = "mpi"))]
    auto.fails(2, &["WORLD_SIZE = 2, but this program works as one process", "--device cuda"]);
    #[cfg(feature = "mpi")]
    auto.fails(2, &["WORLD_SIZE = 2, but MPI knows 1 processes"]);
}

/// Two GPU libraries of one name are an error that names both.
#[test]
fn a_library_beside_the_one_that_was_named() {
    let lab = Lab::new();
    fs::create_dir(lab.path("other")).unwrap();
    fs::copy(stand_ins().join("toolkit/libnvrtc.so"), lab.path("other/libnvrtc.so")).unwrap();
    let path = format!("{}:{}", stand_ins().join("driver").display(), lab.path("other").display());
    let variables = [("LD_LIBRARY_PATH", path.as_str()), ANY];
    run(&lab, "--device cuda doctor", &variables)
        .fails(1, &["two copies of libnvrtc.so are loaded", "/other/libnvrtc.so"]);
}

/// Runs `benches/gpu.sh` with scripts in the place of the programs that it calls, and returns its summary. `date` goes on
/// by a third of a minute at each call.
fn measured(lab: &Lab, ltm: &str, python: &str) -> Vec<String> {
    let _ = fs::remove_dir_all(lab.path("out"));
    let _ = fs::remove_file(lab.path("now"));
    fs::create_dir_all(lab.path("bin")).unwrap();
    for (name, script) in [
        ("ltm", ltm),
        ("bin/python3", python),
        ("bin/date", "echo . >>now; echo $(($(wc -l <now) * 20))"),
        // Does not wait, and tells what it was asked for.
        ("bin/timeout", r#"[ "$1" != -k ] || shift 2; most=$1; shift; echo "$most s"; exec "$@""#),
    ] {
        lab.write(name, format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(lab.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/gpu.sh");
    let mut command = Command::new("sh");
    command.arg(script).args(["ltm", "out"]).current_dir(lab.path("."));
    let path = format!("{}:{}", lab.path("bin").display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let summary = fs::read_to_string(lab.path("out/summary.txt")).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), summary);
    summary.lines().map(str::to_string).collect()
}

/// The script for a GPU: what matters most comes first, and nothing lasts longer than it may, nor all of it.
#[test]
fn every_measurement_of_a_gpu_has_its_time() {
    let lab = Lab::new();
    // Stopped by `timeout` in one part; trains to other weights without captures.
    let ltm = r#"case "$1" in verify) exit 124 ;; train) out=$5/checkpoints/step-00000020
        mkdir -p "$out" && echo "${LTM_CUDA_CAPTURE-1}" >"$out/weights.safetensors" ;; esac"#;
    let said = measured(&lab, ltm, "exit 0");
    let parts: Vec<&str> = said.iter().map(|line| line.split([' ', ':']).next().unwrap()).collect();
    let first = ["doctor", "verify", "train-a", "train-b", "same-bits-b", "train-direct", "same-bits-direct"];
    assert_eq!(parts[..7], first);
    let presets = ["steps-small", "pytorch-small", "steps-medium", "pytorch-medium", "steps-large", "pytorch-large"];
    assert_eq!(parts[7..13], presets);
    assert_eq!(parts[13..], ["products", "ops", "save", "compare", "memory", "no-memory", "nvrtc"]);
    let line = |name: &str| said.iter().find(|line| line.starts_with(name)).unwrap().as_str();
    assert_eq!(line("doctor"), "doctor (20 s): ok");
    assert_eq!(line("verify"), "verify (20 s): stopped after 150 s");
    assert_eq!(line("same-bits-b"), "same-bits-b (20 s): ok");
    assert!(line("same-bits-direct").contains("differ"), "{said:?}");
    assert_eq!(line("pytorch-large"), "pytorch-large (20 s): ok");
    // Each part takes 20 seconds, and as long passes before the next.
    assert_eq!(line("ops"), "ops (20 s): ok");
    assert_eq!(line("save"), "save: not run: no time is left");
    let limit = fs::read_to_string(lab.path("out/ops.txt")).unwrap();
    assert_eq!(limit, "10 s\n");

    let said = measured(&lab, "exit 0", "echo no module >&2; exit 1");
    assert!(said.contains(&"pytorch-small: not run: python3 has no PyTorch that uses the GPU: no module".into()));
}

#[test]
fn a_machine_without_a_driver() {
    let lab = Lab::new();
    // A machine with a GPU has one.
    if Command::new("nvidia-smi").output().is_ok() {
        return;
    }
    let doctor = lab.ltm("--device cpu doctor").succeeds();
    doctor.says("computes on the CPU");
    assert!(!doctor.out.contains("missing"), "{}", doctor.context());
    lab.ltm("doctor").succeeds().says("missing | no NVIDIA driver: libcuda.so.1 is not found | computes on the CPU");
    // Printed when training begins, and nowhere else.
    let why = "on the CPU: there is no NVIDIA driver\n";
    assert_eq!(lab.ltm("plan").succeeds().err, "");
    assert!(lab.train("run", &["train.steps=1"]).succeeds().err.starts_with(why));
    let there = lab.ltm("--device cpu train --resume run --set train.steps=2").succeeds();
    assert!(!there.err.contains(why), "{}", there.context());
    let why = "no NVIDIA driver: libcuda.so.1 is not found; install it (550 or later); --device cpu";
    lab.refuses(1, &[("--device cuda plan", why)]);
}
