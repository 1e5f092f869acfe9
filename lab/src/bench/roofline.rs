//! The roofline as a picture (Williams, Waterman and Patterson 2009): rate over arithmetic intensity, both logarithmic, the
//! two ceilings with their spread, and a numbered point per op and pass with its name in the legend.

use super::{Cache, Report, Row};
use std::fmt::Write;

const SIZE: [f64; 2] = [1200.0, 680.0];
/// Left, top, right and bottom of the plot.
const PLOT: [f64; 4] = [80.0, 64.0, 780.0, 610.0];
const LEGEND: f64 = 805.0;
const FONT: &str = "font-family=\"Helvetica, Arial, sans-serif\"";

/// Colours of the passes, by the first word of their names; they differ in brightness too.
const COLOURS: [(&str, &str); 4] =
    [("forward", "#1f6fb4"), ("backward", "#d9700a"), ("both", "#7b3fa0"), ("whole", "#222222")];

/// A logarithmic axis.
struct Axis {
    /// Powers of ten at both ends.
    ends: [f64; 2],
    pixels: [f64; 2],
}

impl Axis {
    /// From the decade below the least to the one above the largest of `values`.
    fn new(values: impl Iterator<Item = f64> + Clone, pixels: [f64; 2]) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).log10();
        let most = values.fold(0.0, f64::max).log10();
        let (low, high) = ((least - 0.05).floor(), (most + 0.05).ceil());
        Self { ends: [low, high.max(low + 1.0)], pixels }
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value.log10() - self.ends[0]) / (self.ends[1] - self.ends[0]);
        self.pixels[0] + part * (self.pixels[1] - self.pixels[0])
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.ends[0] as i32..=self.ends[1] as i32).map(|power| 10f64.powi(power))
    }
}

/// The op's costliest case in one pass, with warm caches where there is a choice.
struct Point<'a> {
    row: &'a Row,
    cold: Option<&'a Row>,
}

impl Point<'_> {
    fn op(&self) -> &str {
        self.row
            .task
            .case
            .split_once(':')
            .filter(|_| self.row.task.tokens.is_none())
            .map_or(&self.row.task.case, |(op, _)| op)
    }

    fn pass(&self) -> &str {
        self.row.task.pass.split(' ').next().unwrap_or_default()
    }

    fn colour(&self) -> &'static str {
        COLOURS.iter().find(|(pass, _)| *pass == self.pass()).map_or("#777777", |(_, colour)| colour)
    }
}

/// Points in the order of their intensity. Work without FLOPs has no place on the axes.
fn points(report: &Report) -> Vec<Point<'_>> {
    let mut points: Vec<Point> = Vec::new();
    for row in report.rows.iter().filter(|row| row.task.cost.flops > 0 && row.task.cache == Cache::Hot) {
        let cold = report.rows.iter().find(|other| {
            other.task.cache == Cache::Cold && (&other.task.case, &other.task.pass) == (&row.task.case, &row.task.pass)
        });
        let point = Point { row, cold };
        match points.iter_mut().find(|p| (p.op(), p.pass()) == (point.op(), point.pass())) {
            Some(known) if known.row.task.cost.flops < row.task.cost.flops => *known = point,
            Some(_) => {}
            None => points.push(point),
        }
    }
    points.sort_by(|a, b| a.row.intensity().total_cmp(&b.row.intensity()));
    points
}

/// The picture as SVG.
pub fn roofline(report: &Report) -> String {
    let points = points(report);
    let roof = report.roof;
    let ridge = roof.peak / roof.bandwidth;
    let x = Axis::new(points.iter().map(|p| p.row.intensity()).chain([ridge, 10.0 * ridge]), [PLOT[0], PLOT[2]]);
    let lowest = 10f64.powf(x.ends[0]).max(0.1) * roof.bandwidth;
    let rates = points.iter().flat_map(|p| [p.row.flop_rate()].into_iter().chain(p.cold.map(Row::flop_rate)));
    let y = Axis::new(rates.chain([roof.peak, lowest]), [PLOT[3], PLOT[1]]);

    let mut out = String::new();
    let mut draw = |text: String| writeln!(out, "{text}").expect("writing to a string does not fail");
    let [width, height] = SIZE;
    draw(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" {FONT}>"
    ));
    draw(format!("<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>"));
    let m = &report.machine;
    let place = if m.device == "cpu" {
        format!("{}, {}, {} threads", m.processor, m.features, m.threads)
    } else {
        m.device.clone()
    };
    draw(text(
        [PLOT[0], 28.0],
        17,
        "start",
        "#000",
        &format!("Roofline: {place}; {}, preset {}", m.dtype, report.preset),
    ));
    draw(text([PLOT[0], 48.0], 12, "start", "#555", "bands: 20 to 80 % of the ceilings' own measurements"));
    grid(&mut draw, &x, &y);
    ceilings(&mut draw, report, &x, &y);
    marks(&mut draw, &points, &x, &y);
    legend(&mut draw, report, &points);
    draw("</svg>".into());
    out
}

fn grid(draw: &mut impl FnMut(String), x: &Axis, y: &Axis) {
    let [left, top, right, bottom] = PLOT;
    for (decade, next) in x.decades().map(|d| (d, 10.0 * d)) {
        draw(line([x.at(decade), top], [x.at(decade), bottom], "#ccc", 1.0));
        draw(text([x.at(decade), bottom + 18.0], 12, "middle", "#333", &number(decade)));
        for minor in (2..10).map(|i| f64::from(i) * decade).filter(|_| next <= 10f64.powf(x.ends[1])) {
            draw(line([x.at(minor), top], [x.at(minor), bottom], "#f1f1f1", 1.0));
        }
    }
    for (decade, next) in y.decades().map(|d| (d, 10.0 * d)) {
        draw(line([left, y.at(decade)], [right, y.at(decade)], "#ccc", 1.0));
        draw(text([left - 8.0, y.at(decade) + 4.0], 12, "end", "#333", &number(decade / 1e9)));
        for minor in (2..10).map(|i| f64::from(i) * decade).filter(|_| next <= 10f64.powf(y.ends[1])) {
            draw(line([left, y.at(minor)], [right, y.at(minor)], "#f1f1f1", 1.0));
        }
    }
    draw(text([0.5 * (left + right), bottom + 42.0], 13, "middle", "#000", "arithmetic intensity, FLOP per byte"));
    let middle = 0.5 * (top + bottom);
    draw(format!(
        "<g transform=\"rotate(-90 24 {middle})\">{}</g>",
        text([24.0, middle], 13, "middle", "#000", "GFLOP/s")
    ));
}

/// The peak and the bandwidth as lines, their spread as bands around them.
fn ceilings(draw: &mut impl FnMut(String), report: &Report, x: &Axis, y: &Axis) {
    let roof = report.roof;
    let [start, end] = x.ends.map(|power| 10f64.powf(power));
    let bottom = 10f64.powf(y.ends[0]);
    // Where a bandwidth leaves the plot below, meets a peak, and ends.
    let path = |bandwidth: f64, peak: f64| {
        let from = start.max(bottom / bandwidth);
        [[from, from * bandwidth], [peak / bandwidth, peak], [end, peak]].map(|[i, rate]| [x.at(i), y.at(rate)])
    };
    let Some((peak, memory)) = report.ceilings.split_first() else { return };
    let fastest = memory.iter().max_by(|a, b| a.rate()[0].total_cmp(&b.rate()[0]));
    let Some(fastest) = fastest else { return };
    let ([_, low_peak, high_peak], [_, low, high]) = (peak.rate(), fastest.rate());
    let (upper, lower) = (path(high, high_peak), path(low, low_peak));
    let band = upper.iter().chain(lower.iter().rev()).map(|[a, b]| format!("{a:.1},{b:.1}")).collect::<Vec<_>>();
    draw(format!("<polygon points=\"{}\" fill=\"#c33\" fill-opacity=\"0.13\"/>", band.join(" ")));
    let roofline = path(roof.bandwidth, roof.peak);
    let points = roofline.map(|[a, b]| format!("{a:.1},{b:.1}")).join(" ");
    draw(format!("<polyline points=\"{points}\" fill=\"none\" stroke=\"#c33\" stroke-width=\"2\"/>"));
    let label = format!("{} GFLOP/s: {}", number(roof.peak / 1e9), peak.name);
    draw(text([PLOT[2] - 6.0, roofline[2][1] - 8.0], 12, "end", "#a11", &label));
    let [a, b] = [roofline[0], roofline[1]];
    let angle = (b[1] - a[1]).atan2(b[0] - a[0]).to_degrees();
    let at = [a[0] + 0.2 * (b[0] - a[0]), a[1] + 0.2 * (b[1] - a[1])];
    let label = text(
        [at[0], at[1] - 9.0],
        12,
        "middle",
        "#a11",
        &format!("{} GB/s: {}", number(roof.bandwidth / 1e9), fastest.name),
    );
    draw(format!("<g transform=\"rotate({angle:.1} {:.1} {:.1})\">{label}</g>", at[0], at[1]));
}

/// Points with their numbers beside them, where there is room.
fn marks(draw: &mut impl FnMut(String), points: &[Point], x: &Axis, y: &Axis) {
    let place = |row: &Row| [x.at(row.intensity()), y.at(row.flop_rate())];
    let mut taken: Vec<[f64; 2]> = points.iter().map(|p| place(p.row)).collect();
    for (number, point) in (1..).zip(points) {
        let ([px, py], colour) = (place(point.row), point.colour());
        if let Some(cold) = point.cold {
            let [cx, cy] = place(cold);
            draw(line([px, py], [cx, cy], colour, 1.0));
            draw(format!(
                "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3.5\" fill=\"white\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
            ));
        }
        draw(format!("<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4.5\" fill=\"{colour}\"/>"));
        // Around the point, then farther and farther away, until a place is free.
        let around = (1..6).flat_map(|ring| (0..12).map(move |i| (12.0 * f64::from(ring), f64::from(i) * 30.0 - 60.0)));
        let mut spots = around.map(|(far, angle)| {
            let (sin, cos) = angle.to_radians().sin_cos();
            [px + far * cos, py + far * sin]
        });
        let free =
            |spot: &[f64; 2]| taken.iter().all(|t| (t[0] - spot[0]).abs() > 15.0 || (t[1] - spot[1]).abs() > 10.0);
        let inside = |s: &[f64; 2]| s[0] > PLOT[0] + 8.0 && s[0] < PLOT[2] - 8.0 && s[1] > PLOT[1] && s[1] < PLOT[3];
        let spot = spots.find(|s| free(s) && inside(s)).unwrap_or([px + 12.0, py]);
        taken.push(spot);
        if (spot[0] - px).hypot(spot[1] - py) > 13.0 {
            draw(line([px, py], spot, "#bbb", 0.7));
        }
        draw(text([spot[0], spot[1] + 4.0], 11, "middle", colour, &number.to_string()));
    }
}

fn legend(draw: &mut impl FnMut(String), report: &Report, points: &[Point]) {
    draw(text([LEGEND, PLOT[1] + 4.0], 12, "start", "#000", "op and pass, costliest case: floor reached, hot / cold"));
    let step = (0.9 * (PLOT[3] - PLOT[1]) / points.len().max(1) as f64).min(17.0);
    let size = if step < 12.0 { 9 } else { 11 };
    for (i, point) in points.iter().enumerate() {
        let at = PLOT[1] + 24.0 + step * i as f64;
        draw(text([LEGEND + 18.0, at], size, "end", point.colour(), &(i + 1).to_string()));
        let cold = point.cold.map_or(String::new(), |row| format!(" / {:.0}", 100.0 * row.reached()));
        let label = format!("{}, {}: {:.0}{cold} %", point.op(), point.row.task.pass, 100.0 * point.row.reached());
        draw(text([LEGEND + 26.0, at], size, "start", "#222", &label));
    }
    let mut left = PLOT[0];
    for (pass, colour) in COLOURS {
        draw(format!("<circle cx=\"{:.1}\" cy=\"668\" r=\"4.5\" fill=\"{colour}\"/>", left + 6.0));
        let name = match pass {
            "both" => "forward and backward in one",
            "whole" => "whole steps",
            pass => pass,
        };
        draw(text([left + 16.0, 672.0], 12, "start", "#222", name));
        left += 36.0 + 6.6 * name.len() as f64;
    }
    draw(format!(
        "<circle cx=\"{:.1}\" cy=\"668\" r=\"3.5\" fill=\"white\" stroke=\"#222\" stroke-width=\"1.5\"/>",
        left + 6.0
    ));
    draw(text([left + 16.0, 672.0], 12, "start", "#222", "with cold caches"));
    let without = report.rows.iter().filter(|row| row.task.cost.flops == 0).count();
    if without > 0 {
        let note = format!("not shown: {without} rows without FLOPs");
        draw(text([SIZE[0] - 16.0, 672.0], 12, "end", "#555", &note));
    }
}

fn line(a: [f64; 2], b: [f64; 2], colour: &str, width: f64) -> String {
    format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
        a[0], a[1], b[0], b[1]
    )
}

fn text(at: [f64; 2], size: u32, anchor: &str, colour: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"{colour}\" paint-order=\"stroke\" stroke=\"#fff\" stroke-width=\"2.5\">{words}</text>",
        at[0], at[1]
    )
}

/// Three digits at most, without zeros behind the point.
fn number(x: f64) -> String {
    let digits = (2 - x.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{x:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn points_lie_where_their_numbers_say() {
        let x = Axis { ends: [0.0, 2.0], pixels: [100.0, 300.0] };
        assert_eq!((x.at(1.0), x.at(10.0), x.at(100.0)), (100.0, 200.0, 300.0));
        assert_eq!(Axis::new([0.5, 300.0].into_iter(), [0.0, 1.0]).ends, [-1.0, 3.0]);
        assert_eq!([0.01, 1.0, 29.57, 418.4, 1000.0].map(number), ["0.01", "1", "29.6", "418", "1000"]);
    }

    #[test]
    fn the_picture_shows_every_op_once_and_is_well_formed() {
        let report = report(1.0);
        let picture = roofline(&report);
        // Two ops, one of them with cold caches, and five circles in the legend.
        assert_eq!(picture.matches("<circle").count(), 3 + 5);
        for label in [
            "linear, forward: 79 / 79 %",
            "add, forward: 59 %",
            "Abacus &lt;9&gt; &amp; Sons",
            "100 GFLOP/s: fused",
            "10 GB/s: read",
        ] {
            assert!(picture.contains(label), "{label}:\n{picture}");
        }
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
        for tag in ["text", "g", "svg"] {
            assert_eq!(picture.matches(&format!("<{tag} ")).count(), picture.matches(&format!("</{tag}>")).count());
        }
        // Nothing measured is still a picture of the ceilings.
        assert!(!roofline(&Report { rows: Vec::new(), ..report }).contains("NaN"));
    }
}
