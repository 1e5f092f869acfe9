//! The roofline as a picture (Williams, Waterman and Patterson 2009): rates over arithmetic intensity under the two ceilings.

use super::{Cache, Report, Row};
use crate::plot::{Look, Mark, Plot, Series};
use crate::table::number;

/// The op's costliest case in one pass, with warm caches, and the same with cold ones where that was measured.
struct Point<'a> {
    row: &'a Row,
    cold: Option<&'a Row>,
}

impl Point<'_> {
    fn op(&self) -> &str {
        let task = &self.row.task;
        match task.case.split_once(':') {
            Some((op, _)) if task.tokens.is_none() => op,
            _ => &task.case,
        }
    }

    fn pass(&self) -> &str {
        self.row.task.pass.split(' ').next().unwrap_or_default()
    }

    fn series(&self, number: usize) -> Series {
        let mark = |row: &Row, hollow| {
            let numbers = row.numbers();
            Mark { hollow, ..Mark::new(numbers.intensity, numbers.flops_per_second / 1e9) }
        };
        let reached = |row: &Row| 100.0 * row.numbers().reached;
        let mut marks = vec![Mark { label: number.to_string(), ..mark(self.row, false) }];
        marks.extend(self.cold.map(|cold| mark(cold, true)));
        let cold = self.cold.map_or(String::new(), |row| format!(" / {:.0}", reached(row)));
        let colour = match self.pass() {
            "forward" => 0,
            "backward" => 1,
            "both" => 3,
            // Whole steps.
            _ => 6,
        };
        Series {
            name: format!("{number}  {}, {}: {:.0}{cold} %", self.op(), self.row.task.pass, reached(self.row)),
            look: Look { colour, stroke: 0 },
            line: marks.iter().map(|mark| mark.at).collect(),
            marks,
        }
    }
}

/// Points in the order of their intensity. Work without FLOPs has no place on the axes.
fn points(report: &Report) -> Vec<Point<'_>> {
    let mut points: Vec<Point> = Vec::new();
    for row in report.rows.iter().filter(|row| row.task.flops > 0 && row.task.cache == Cache::Hot) {
        let cold = report.rows.iter().find(|other| {
            other.task.cache == Cache::Cold && (&other.task.case, &other.task.pass) == (&row.task.case, &row.task.pass)
        });
        let point = Point { row, cold };
        match points.iter_mut().find(|p| (p.op(), p.pass()) == (point.op(), point.pass())) {
            Some(known) if known.row.task.flops < row.task.flops => *known = point,
            Some(_) => {}
            None => points.push(point),
        }
    }
    points.sort_by(|a, b| a.row.numbers().intensity.total_cmp(&b.row.numbers().intensity));
    points
}

/// The picture as SVG.
pub fn roofline(report: &Report) -> String {
    let points = points(report);
    let mut series = ceilings(report, &points);
    series.extend(points.iter().enumerate().map(|(i, point)| point.series(i + 1)));
    let machine = &report.machine;
    let place = if machine.device == "cpu" {
        format!("{}, {}, {} threads", machine.processor, machine.features, machine.threads)
    } else {
        machine.device.clone()
    };
    let mut notes = vec![
        "An op's costliest case by pass, and the share of".to_string(),
        "its floor that it reaches: hot / cold caches.".into(),
        "Rings: cold caches.".into(),
    ];
    let without = report.rows.iter().filter(|row| row.task.flops == 0).count();
    if without > 0 {
        notes.push(format!("Not shown: {without} rows without FLOPs."));
    }
    let plot = Plot {
        title: format!("Roofline: {place}; {}, preset {}", machine.dtype, report.preset),
        axes: ["arithmetic intensity, FLOP per byte", "GFLOP/s"].map(String::from),
        is_log: true,
        series,
        notes,
        ..Plot::default()
    };
    plot.file()
}

/// The roof, and where 20 and 80 % of the ceilings' measurements put it.
fn ceilings(report: &Report, points: &[Point]) -> Vec<Series> {
    let Some((peak, memory)) = report.ceilings.split_first() else { return Vec::new() };
    let Some(fastest) = memory.iter().max_by(|a, b| a.median.total_cmp(&b.median)) else { return Vec::new() };
    let roof = report.roof;
    let intensities = || points.iter().map(|point| point.row.numbers().intensity);
    let ridge = roof.peak / roof.bandwidth;
    let [least, most] = [intensities().fold(ridge / 10.0, f64::min) / 2.0, intensities().fold(ridge * 10.0, f64::max)];
    let path = |bandwidth: f64, peak: f64| {
        [[least, least * bandwidth], [peak / bandwidth, peak], [most, peak]].map(|[x, rate]| [x, rate / 1e9])
    };
    let spread = [&path(fastest.q20, peak.q20)[..], &[[f64::NAN; 2]], &path(fastest.q80, peak.q80)].concat();
    let line = |name, stroke, line| Series { name, look: Look { colour: 4, stroke }, line, marks: Vec::new() };
    let roof_name = format!(
        "{} GB/s: {}; {} GFLOP/s: {}",
        number(roof.bandwidth / 1e9),
        fastest.name,
        number(roof.peak / 1e9),
        peak.name
    );
    vec![
        line(roof_name, 0, path(roof.bandwidth, roof.peak).to_vec()),
        line("20 and 80 % of the ceilings' measurements".into(), 2, spread),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn every_op_is_shown_once() {
        let report = report(1.0);
        let picture = roofline(&report);
        let xml = roxmltree::Document::parse(&picture).unwrap();
        let texts: Vec<&str> = xml.descendants().filter_map(|node| node.text()).map(str::trim).collect();
        for text in [
            "1  add, forward: 59 %",
            "2  linear, forward: 79 / 79 %",
            "10 GB/s: read; 100 GFLOP/s: fused multiply-adds",
            "Roofline: Abacus <9> & Sons, scalar, 2 threads; f32, preset small",
        ] {
            assert!(texts.contains(&text), "{text}: {texts:?}");
        }
        // A disc for either op in the picture and in the legend, and a ring on white for cold caches.
        assert_eq!(xml.descendants().filter(|node| node.has_tag_name("circle")).count(), 2 * 2 + 2);
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
        // Nothing measured is still a picture of the ceilings.
        assert!(roofline(&Report { rows: Vec::new(), ..report }).contains("GFLOP/s: fused"));
    }
}
