//! The roofline as a picture (Williams, Waterman and Patterson 2009): rates over arithmetic intensity under the ceilings.

use super::STEPS;
use crate::plot::{Look, Mark, Plot, Series};
use crate::table::number;
use roofline::{Cache, Conditions, MEMORY, Numbers, Report, Row, Task};

/// The label of a point: an op or a whole step, and the kind of pass.
fn point(task: &Task) -> (&str, &str) {
    let first = |text, end| str::split(text, end).next().unwrap_or_default();
    let name = if task.group == STEPS { &task.case } else { first(&task.case, ':') };
    (name, first(&task.pass, ' '))
}

/// The most expensive case of every point with warm caches, in the order of intensity. Work without FLOPs is not on the
/// plot.
fn points(report: &Report) -> Vec<&Row> {
    let mut points: Vec<&Row> = Vec::new();
    for row in report.rows.iter().filter(|row| row.task.flops > 0 && row.task.cache == Cache::Hot) {
        match points.iter_mut().find(|known| point(&known.task) == point(&row.task)) {
            Some(known) if known.task.flops < row.task.flops => *known = row,
            Some(_) => {}
            None => points.push(row),
        }
    }
    points.sort_by(|a, b| a.numbers().intensity.total_cmp(&b.numbers().intensity));
    points
}

/// A point, and the same work with cold caches if it was measured.
fn series(report: &Report, number: usize, row: &Row) -> Series {
    let (name, pass) = point(&row.task);
    let key = (&row.task.case[..], &row.task.pass[..], Cache::Cold);
    let cold = report.rows.iter().find(|other| other.task.key() == key);
    let numbers: Vec<Numbers> = std::iter::once(row).chain(cold).map(Row::numbers).collect();
    let mut marks: Vec<Mark> = numbers.iter().map(|n| Mark::new(n.intensity, n.flops_per_second / 1e9)).collect();
    marks[0].label = number.to_string();
    marks[1..].iter_mut().for_each(|mark| mark.hollow = true);
    let reached = numbers.iter().map(|n| format!("{:.0}", 100.0 * n.reached)).collect::<Vec<_>>().join(" / ");
    let colour = match pass {
        "forward" => 0,
        "backward" => 1,
        "both" => 3,
        // Whole steps.
        _ => 6,
    };
    Series {
        name: format!("{number}  {name}, {}: {reached} %", row.task.pass),
        look: Look { colour, stroke: 0 },
        line: marks.iter().map(|mark| mark.at).collect(),
        marks,
        ..Series::default()
    }
}

/// The picture as SVG.
pub fn picture(report: &Report) -> String {
    let points = points(report);
    let mut series = ceilings(report, &points);
    series.extend(points.iter().zip(1..).map(|(row, number)| self::series(report, number, row)));
    let mut notes = vec![
        "Each op's most expensive case by pass, and the share of".to_string(),
        "its floor that it reaches: hot / cold caches.".into(),
        "Rings: cold caches.".into(),
    ];
    let without = report.rows.iter().filter(|row| row.task.flops == 0).count();
    if without > 0 {
        notes.push(format!("Not shown: {without} rows without FLOPs."));
    }
    let Conditions { machine, title, .. } = &report.conditions;
    let plot = Plot {
        title: format!("Roofline: {machine}; {}, {title}", machine.dtype),
        axes: ["arithmetic intensity, FLOP per byte", "GFLOP/s"].map(String::from),
        is_log: true,
        series,
        notes,
        ..Plot::default()
    };
    plot.file()
}

/// The roof, and the roofs at the 20 and 80 % quantiles of the ceilings.
fn ceilings(report: &Report, points: &[&Row]) -> Vec<Series> {
    let Some((peak, memory)) = report.ceilings.split_first() else { return Vec::new() };
    let Some(fastest) = memory.iter().max_by(|a, b| a.median.total_cmp(&b.median)) else { return Vec::new() };
    let roof = report.roof;
    let intensities = || points.iter().map(|row| row.numbers().intensity);
    let ridge = roof.peak / roof.bandwidth;
    let [least, most] = [intensities().fold(ridge / 10.0, f64::min) / 2.0, intensities().fold(ridge * 10.0, f64::max)];
    let path = |bandwidth: f64, peak: f64| {
        [[least, least * bandwidth], [peak / bandwidth, peak], [most, peak]].map(|[x, rate]| [x, rate / 1e9])
    };
    let spread = [&path(fastest.q20, peak.q20)[..], &[[f64::NAN; 2]], &path(fastest.q80, peak.q80)].concat();
    let line = |name, stroke, line| Series { name, look: Look { colour: 4, stroke }, line, ..Series::default() };
    let bandwidth = number(roof.bandwidth / 1e9);
    let roof_name =
        format!("{MEMORY}, {bandwidth} GB/s: {}; {} GFLOP/s: {}", fastest.name, number(roof.peak / 1e9), peak.name);
    let mut lines = vec![
        line(roof_name, 0, path(roof.bandwidth, roof.peak).to_vec()),
        line("20 and 80 % of the ceilings' measurements".into(), 2, spread),
    ];
    // Under the roof of a cache, the work of which all bytes fit into it.
    lines.extend(report.caches.iter().map(|cache| {
        let (rate, kib) = (cache.rate.median, cache.bytes >> 10);
        let name = format!("{}, {} GB/s: up to {kib} KiB", cache.level, number(rate / 1e9));
        line(name, 3, path(rate, roof.peak)[..2].to_vec())
    }));
    lines.extend(report.f32_peak.as_ref().map(|peak| {
        let name = format!("{} GFLOP/s: {}, for all work in f32", number(peak.median / 1e9), peak.name);
        line(name, 1, path(roof.bandwidth, peak.median)[1..].to_vec())
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use roofline::Rate;
    use serde_json::{Value, json};

    /// A report of three rows.
    fn report() -> Report {
        let row = |case: &str, cache: &str, flops: u64, bytes: u64, seconds: f64| {
            json!({
                "group": "matmul", "case": case, "pass": "forward", "cache": cache, "flops": flops, "bytes": bytes,
                "tokens": null, "times": [[seconds]], "peak_flops": 1e11, "bandwidth": 1e10, "level": MEMORY,
                "checked": true
            })
        };
        let rate =
            |name: &str, rate: f64| json!({"name": name, "median": rate, "q20": rate, "q80": rate, "best": rate});
        let cache = |level: &str, kib: u64, bandwidth: f64| -> Value {
            let mut cache = rate("read", bandwidth);
            (cache["level"], cache["bytes"]) = (level.into(), (kib << 10).into());
            cache
        };
        let processor = "Abacus <9> & Sons";
        let file = json!({
            "format": "roofline report", "version": 6, "title": "preset small", "sizes": "batch 1", "settings": {},
            "machine": {"processor": processor, "features": "scalar", "threads": 2, "device": "cpu", "dtype": "f32"},
            "ceilings": [rate("fused multiply-adds", 1e11), rate("read", 1e10)], "f32_peak": null,
            "caches": [cache("L1", 64, 2e11), cache("L2", 1024, 5e10)], "peak_flops": 1e11, "bandwidth": 1e10,
            "rows": [
                row("linear: queries", "hot", 1_000_000_000, 1_000_000, 0.0126),
                row("linear: queries", "cold", 1_000_000_000, 1_000_000, 0.0126),
                row("add: residual", "hot", 1_000_000, 12_000_000, 0.00202),
            ]
        });
        Report::parse(file.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_op_is_shown_once() {
        let report = report();
        let drawn = picture(&report);
        let xml = roxmltree::Document::parse(&drawn).unwrap();
        let texts: Vec<&str> = xml.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        for text in [
            "1  add, forward: 59 %",
            "2  linear, forward: 79 / 79 %",
            "memory, 10 GB/s: read; 100 GFLOP/s: fused multiply-adds",
            "L1, 200 GB/s: up to 64 KiB",
            "L2, 50 GB/s: up to 1024 KiB",
            "Roofline: Abacus <9> & Sons, scalar, 2 threads; f32, preset small",
        ] {
            assert!(texts.contains(&text), "{text}: {texts:?}");
        }
        // A disc for each op in the picture and in the legend, and a ring on white for cold caches.
        assert_eq!(xml.descendants().filter(|node| node.has_tag_name("circle")).count(), 2 * 2 + 2);
        assert!(!drawn.contains("NaN") && !drawn.contains("inf"));
        let peak = Rate { name: "f32".into(), median: 5e10, q20: 5e10, q80: 5e10, best: 5e10 };
        let rounded = picture(&Report { f32_peak: Some(peak), ..report.clone() });
        assert!(rounded.contains("50 GFLOP/s: f32, for all work in f32"));
        // Without rows the picture still shows the ceilings.
        assert!(picture(&Report { rows: Vec::new(), ..report }).contains("GFLOP/s: fused"));
    }
}
