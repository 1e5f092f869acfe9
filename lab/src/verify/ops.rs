//! Compares every op and every update with the CPU in f64: on the CPU in f32, with products in f32 or in bf16; on a GPU in
//! f32 and bf16.

use super::cases::{Pass, errors, exact, passes};
use super::updates::{Script, scripts};
use autograd::gradcheck::{Options, check_op};
use engine::{DType, Device, Products, Result};
use kernels::case::{Case, Input, Sizes};
use kernels::cast::Cast;
use kernels::cross_entropy::CHUNK;
use kernels::registry::{ROOMS, Room};

/// The errors of one op on a device in one storage type.
#[derive(Clone, Debug, PartialEq)]
pub struct OpReport {
    /// The op's folder, and whether it is an update.
    pub op: String,
    /// How tensors were stored; on the CPU, which always stores f32, bf16 says that products round their factors.
    pub dtype: DType,
    /// Cases run.
    pub cases: usize,
    /// Cases skipped because their heads are too wide for this GPU.
    pub left_out: usize,
    /// Worst relative error ‖x − f64‖ / ‖f64‖ of any output, or of any state for an update.
    pub forward: f64,
    /// The same of any gradient; `None` without gradients.
    pub gradient: Option<f64>,
    /// Worst relative difference between an f64 gradient and central differences; `None` if not checked.
    pub numeric: Option<f64>,
    /// The first error beyond the tolerance.
    pub failure: Option<String>,
}

/// Sizes of one, partial packs everywhere, full packs and blocks with a window that rounds products on a CPU in bf16.
pub const SIZES: [Sizes; 3] = [
    Sizes { batch: 1, tokens: 1, heads: 1, head_dim: 2, window: 1, latents: 1, ffn: 1, vocab: 2 },
    Sizes { batch: 2, tokens: 37, heads: 3, head_dim: 10, window: 11, latents: 19, ffn: 45, vocab: 101 },
    Sizes { batch: 2, tokens: 130, heads: 2, head_dim: 32, window: 70, latents: 8, ffn: 96, vocab: 258 },
];

/// More tokens than the head takes at a time.
pub const LONG: Sizes = Sizes { tokens: CHUNK + 70, vocab: 5, ..SIZES[0] };

/// Rows of more numbers than a warp keeps in registers.
pub const WIDE: [Sizes; 2] =
    [Sizes { tokens: 3, head_dim: 1090, ..SIZES[0] }, Sizes { tokens: 3, head_dim: 1096, ..SIZES[0] }];

/// Sizes of a real model, so that tiles and library algorithms are those of training. Too large for a simulated GPU.
pub const MODEL_SIZES: Sizes =
    Sizes { batch: 2, tokens: 512, heads: 8, head_dim: 64, window: 256, latents: 24, ffn: 1408, vocab: 8192 };

/// Largest accepted relative error on a device: of single ops, and of updates.
pub fn device_tolerance(dtype: DType) -> f64 {
    if dtype == DType::Bf16 { 1e-2 } else { 1e-4 }
}

/// The sizes for testing an op's kernels: attention is compiled for several head widths, and norms keep part of a row.
pub fn sizes(room: &Room) -> Vec<Sizes> {
    let wide = |head_dim| Sizes { tokens: 70, heads: 1, head_dim, window: 40, latents: 19, ..SIZES[0] };
    let further = match room.name {
        "cross_entropy" => vec![LONG],
        name if name.contains("attention") => [64, 120, 128].map(wide).to_vec(),
        name if name.contains("norm") => WIDE.to_vec(),
        _ => vec![],
    };
    [&SIZES[..], &further].concat()
}

/// Runs every op's cases on the CPU in f32, and checks their f64 gradients against central differences. Rooms whose products
/// can round their factors to bf16 have a second report on that.
pub fn ops() -> Vec<OpReport> {
    let rounding = Device::CPU.with(Products::Bf16);
    let of_room = |room: &Room| {
        let [mut single, mut rounded] = [DType::F32, DType::Bf16].map(|dtype| OpReport::new(room.name, dtype));
        for case in SIZES[1..].iter().flat_map(|size| (room.cases)(size)) {
            let place = format!("{} {}", case.op.name(), case.label);
            let checked = single
                .check(&place, |report| Ok(report.case(&case, &Device::CPU)?.or_else(|| report.numeric(&case))))
                .and_then(|()| rounded.check(&place, |report| report.case(&case, &rounding)));
            checked.expect("the CPU does not fail");
        }
        let rounds = (rounded.forward, rounded.gradient) != (single.forward, single.gradient);
        std::iter::once(single).chain(rounds.then_some(rounded))
    };
    ROOMS.iter().flat_map(of_room).collect()
}

/// Runs every op's cases, also at the sizes `further`, and every update on `device`, which must have all kernels
/// loaded, in f32 and in bf16; calls `done` with each report.
///
/// # Errors
/// If the device fails; the error names the place, and the device can do nothing more.
pub fn device(device: &Device, further: &[Sizes], mut done: impl FnMut(&OpReport)) -> Result<Vec<OpReport>> {
    let mut reports = Vec::new();
    let mut add = |report: OpReport| {
        done(&report);
        reports.push(report);
    };
    for room in ROOMS {
        for dtype in [DType::F32, DType::Bf16] {
            let widest = match device {
                Device::Cuda(gpu) if ["self_attention", "cross_attention"].contains(&room.name) => {
                    kernels::widest_head(&**gpu, dtype)
                }
                _ => usize::MAX,
            };
            let mut report = OpReport::new(room.name, dtype);
            for size in sizes(room).iter().chain(further) {
                for case in (room.cases)(size) {
                    if size.head_dim > widest {
                        report.left_out += 1;
                        continue;
                    }
                    report.check(&format!("{} {}", case.op.name(), case.label), |report| report.case(&case, device))?;
                }
            }
            add(report);
        }
    }
    for dtype in [DType::F32, DType::Bf16] {
        let mut report = OpReport::new("cast", dtype);
        report.check("cast", |report| report.cast(device))?;
        add(report);
    }
    // Updates work on weights, which are in f32.
    let mut scripts = scripts();
    scripts.sort_by_key(|script| script.room);
    for scripts in scripts.chunk_by(|a, b| a.room == b.room) {
        let mut report = OpReport::new(&format!("{} in place", scripts[0].room), DType::F32);
        for script in scripts {
            report.check("buffer", |report| report.update(script, device))?;
        }
        add(report);
    }
    Ok(reports)
}

impl OpReport {
    fn new(op: &str, dtype: DType) -> Self {
        Self { op: op.into(), dtype, cases: 0, left_out: 0, forward: 0.0, gradient: None, numeric: None, failure: None }
    }

    /// Counts a case, and keeps the first error with its place.
    fn check(&mut self, place: &str, case: impl FnOnce(&mut Self) -> Result<Option<String>>) -> Result<()> {
        self.cases += 1;
        let place = format!("{} {}, {place}", self.op, self.dtype);
        if let Some(deviation) = case(self).map_err(|e| e.at(&place))? {
            self.failure.get_or_insert(format!("{place}: {deviation}"));
        }
        Ok(())
    }

    fn case(&mut self, case: &Case, device: &Device) -> Result<Option<String>> {
        let stored = if device.rounds_products() { DType::F32 } else { self.dtype };
        // The device runs first; if it fails, there is nothing to compare.
        let ours = passes(case, device, stored)?;
        Ok(self.compare(&ours, &exact(case, stored)))
    }

    /// Keeps the worst errors, and the first that exceeds the tolerance.
    fn compare(&mut self, ours: &[Pass], exact: &[Pass]) -> Option<String> {
        let mut deviation = None;
        for (pass, i, error) in errors(ours, exact) {
            let worst = if pass.is_backward { self.gradient.get_or_insert(0.0) } else { &mut self.forward };
            *worst = worst.max(error);
            if error > device_tolerance(self.dtype) {
                deviation.get_or_insert(format!("{} {i} has an error of {error:.1e}", pass.what));
            }
        }
        deviation
    }

    /// The f64 gradient against central differences, for every subset of wanted inputs.
    fn numeric(&mut self, case: &Case) -> Option<String> {
        match check_op(case.op.as_ref(), &case.buffers(DType::F64, 1), &Options::default()) {
            Ok(checked) if checked.checked > 0 => {
                self.numeric = Some(checked.worst.max(self.numeric.unwrap_or(0.0)));
                None
            }
            checked => checked.err().map(|e| e.to_string()),
        }
    }

    /// Rounding is exact, so all bits must equal the CPU's in both directions.
    fn cast(&mut self, device: &Device) -> Result<Option<String>> {
        let to = if self.dtype == DType::F32 { DType::Bf16 } else { DType::F32 };
        let case = Case::new("cast", Cast { to }, vec![Input::normal(&[2059])]);
        let ours = passes(&case, device, self.dtype)?;
        let exact = passes(&case, &Device::CPU, self.dtype)?;
        self.compare(&ours, &exact);
        let bytes = |passes: &[Pass]| -> Vec<Vec<u8>> {
            passes.iter().flat_map(|pass| &pass.buffers).map(|b| b.as_bytes().to_vec()).collect()
        };
        Ok((bytes(&ours) != bytes(&exact)).then(|| "the bits differ from the CPU's".into()))
    }

    fn update(&mut self, script: &Script, device: &Device) -> Result<Option<String>> {
        let ours = script.run(device, DType::F32)?;
        Ok(self.compare(&ours, &script.run(&Device::CPU, DType::F64)?))
    }
}
