//! The table, in Markdown.

use crate::Measured;
use crate::contenders::{Contender, Form};
use std::fs;

/// Results may differ by the order of their sums, and by nothing else: in units of k·ε, this is five standard deviations.
const TOLERANCE: f64 = 3.0;
/// What we want to reach against the best rival at every shape.
const GOAL: f64 = 0.95;

/// The processor's name, where the system tells.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}

/// What stands above the table.
pub fn begin(threads: usize, contenders: &[Contender]) {
    println!(
        "{}, {}, {threads} thread(s), f32; share of the FMA peak measured between the calls",
        processor(),
        engine::simd::level()
    );
    println!("speed: the best rival's time divided by ours, medians of interleaved rounds\n");
    let names: Vec<_> = contenders.iter().map(Contender::name).collect();
    println!("| product [m, k, n] | form | peak GFLOP/s | {} | speed | packed |", names.join(" | "));
    println!("|---|---|---|{}---|---|", "---|".repeat(names.len()));
}

/// The best rival's time divided by ours, packing at every call and before.
fn speeds(measured: &Measured) -> [f64; 2] {
    // ratio[i] is our time divided by that of contender i.
    let best = measured.ratio[2..].iter().fold(0.0f64, |most, &ratio| most.max(ratio));
    [1.0 / best, measured.ratio[1] / best]
}

/// One line of the table.
pub fn row(measured: &Measured) {
    let p = measured.product;
    let form = match p.form {
        Form::Forward => "y = x·wᵀ",
        Form::Input => "d_x = d_y·w",
        Form::Weight => "d_w = d_yᵀ·x",
    };
    let share = |seconds: &f64| format!("{:.1} %", 100.0 * p.flops() / seconds / measured.peak);
    let shares: Vec<_> = measured.seconds.iter().map(share).collect();
    let [speed, packed] = speeds(measured);
    let peak = measured.peak / 1e9;
    println!("| {:?} | {form} | {peak:.0} | {} | {speed:.2} | {packed:.2} |", [p.m, p.k, p.n], shares.join(" | "));
}

/// What stands below the table. Whether all results agree.
pub fn end(contenders: &[Contender], all: &[Measured]) -> bool {
    let mean = |which: usize| {
        let logs: f64 = all.iter().map(|m| speeds(m)[which].ln()).sum();
        (logs / all.len() as f64).exp()
    };
    let least = |which: usize| all.iter().map(|m| speeds(m)[which]).fold(f64::INFINITY, f64::min);
    for (which, name) in ["packing at every call", "packed beforehand"].into_iter().enumerate() {
        println!(
            "\n{name}: {:.2} × the best rival in the geometric mean, {:.2} at least (goal {GOAL})",
            mean(which),
            least(which)
        );
    }
    for (i, rival) in contenders.iter().enumerate().filter(|(_, c)| c.is_rival()) {
        let logs: f64 = all.iter().map(|m| m.ratio[i].ln()).sum();
        println!("{}: ours is {:.2} × as fast in the geometric mean", rival.name(), (-logs / all.len() as f64).exp());
    }
    let difference = all.iter().map(|m| m.difference).fold(0.0, f64::max);
    let agree = difference <= TOLERANCE;
    println!("largest difference between results: {difference:.2}·k·ε{}", if agree { "" } else { ": THEY DISAGREE" });
    agree
}
