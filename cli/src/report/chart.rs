//! Pictures as inline SVG that takes its colours from the page, so that they follow light, dark and print.

use maud::{Markup, html};

/// Width and height, and the plot's left, right, top and bottom, in the picture's units. Letters of 13 units can be read where
/// a phone shows the picture at three quarters of its size.
const SIZE: [f64; 2] = [480.0, 300.0];
const PLOT: [f64; 4] = [70.0, 468.0, 12.0, 252.0];

/// Kinds of lines that the page's style knows.
const COLOURS: usize = 7;
const DASHES: usize = 4;

/// The classes of run number `run`: no two of the first 28 look the same, and neighbours differ without colours too.
pub fn look(run: usize) -> String {
    format!("c{} d{}", run % COLOURS, run % DASHES)
}

/// A run's line.
pub struct Series<'a> {
    /// Which run.
    pub run: usize,
    pub name: &'a str,
    pub line: Vec<[f64; 2]>,
    /// Circles, joined by a thin line.
    pub marks: Vec<[f64; 2]>,
}

impl Series<'_> {
    fn points(&self) -> impl Iterator<Item = [f64; 2]> {
        self.line.iter().chain(&self.marks).copied().filter(|[x, y]| x.is_finite() && y.is_finite())
    }
}

/// Some runs' lines over one pair of axes.
pub struct Chart<'a> {
    pub title: &'a str,
    /// What stands at the axes.
    pub x: &'a str,
    pub y: &'a str,
    pub series: Vec<Series<'a>>,
}

impl Chart<'_> {
    /// The picture under its title; nothing without a point.
    pub fn figure(&self) -> Markup {
        let points = || self.series.iter().flat_map(Series::points);
        if points().next().is_none() {
            return html! {};
        }
        let x = Axis::new(points().map(|p| p[0]), [PLOT[0], PLOT[1]]);
        let y = Axis::new(points().map(|p| p[1]), [PLOT[3], PLOT[2]]);
        html! {
            figure {
                figcaption { (self.title) }
                svg viewBox={ "0 0 " (SIZE[0]) " " (SIZE[1]) } role="img" aria-label=(self.words()) {
                    @for tick in y.ticks() {
                        line.grid x1=(PLOT[0]) x2=(PLOT[1]) y1=(px(y.at(tick))) y2=(px(y.at(tick))) {}
                        text.end x=(PLOT[0] - 6.0) y=(px(y.at(tick) + 4.5)) { (number(tick)) }
                    }
                    @for tick in x.ticks() {
                        line.axis x1=(px(x.at(tick))) x2=(px(x.at(tick))) y1=(PLOT[3]) y2=(PLOT[3] + 5.0) {}
                        text.middle x=(px(x.at(tick))) y=(PLOT[3] + 19.0) { (number(tick)) }
                    }
                    line.axis x1=(PLOT[0]) x2=(PLOT[1]) y1=(PLOT[3]) y2=(PLOT[3]) {}
                    text.middle x=((PLOT[0] + PLOT[1]) / 2.0) y=(SIZE[1] - 8.0) { (self.x) }
                    text.middle transform={ "translate(13 " ((PLOT[2] + PLOT[3]) / 2.0) ") rotate(-90)" } { (self.y) }
                    @for series in &self.series {
                        g class=(look(series.run)) {
                            path.line d=(path(&series.line, &x, &y)) {}
                            path.thin d=(path(&series.marks, &x, &y)) {}
                            @for mark in series.marks.iter().filter(|mark| mark[1].is_finite()) {
                                circle cx=(px(x.at(mark[0]))) cy=(px(y.at(mark[1]))) r="4" {
                                    title { (series.name) ": " (format!("{:.4}", mark[1])) " at " (number(mark[0])) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The picture for whoever does not see it.
    fn words(&self) -> String {
        let of = |series: &Series<'_>| {
            let finite = |points: &[[f64; 2]]| points.iter().copied().filter(|p| p[1].is_finite()).collect::<Vec<_>>();
            let (line, marks) = (finite(&series.line), finite(&series.marks));
            let mut words = Vec::new();
            if let [first, .., last] = line[..] {
                words.push(format!("from {:.3} to {:.3} at {}", first[1], last[1], number(last[0])));
            }
            words.extend(marks.last().map(|last| format!("held out {:.3} at {}", last[1], number(last[0]))));
            (!words.is_empty()).then(|| format!("{}: {}", series.name, words.join(", ")))
        };
        let all: Vec<String> = self.series.iter().filter_map(of).collect();
        format!("{}, {} against {}. {}.", self.title, self.y, self.x, all.join("; "))
    }
}

/// A line's swatch for a legend.
pub fn swatch(run: usize) -> Markup {
    html! {
        svg.swatch viewBox="0 0 34 12" width="34" height="12" aria-hidden="true" {
            g class=(look(run)) {
                path.line d="M1 6H33" {}
                circle cx="17" cy="6" r="4" {}
            }
        }
    }
}

/// Values from 0 up as a grid of cells: rows of layers, columns of latents.
pub fn heat(name: &str, rows: &[&[f64]], most: f64) -> Markup {
    let columns = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(1);
    // Cells are wide where they are few, and fill the width in any case.
    let (left, width, height) = (56.0, (SIZE[0] - 60.0) / columns as f64, 26.0);
    let under = 2.0 + height * rows.len() as f64;
    let every = columns.div_ceil(12);
    let sums: Vec<f64> = rows.iter().map(|row| row.iter().sum()).collect();
    let parts: Vec<String> = sums.iter().enumerate().map(|(l, sum)| format!("layer {} {sum:.2}", l + 1)).collect();
    html! {
        svg viewBox={ "0 0 " (SIZE[0]) " " (under + 20.0) } role="img"
            aria-label={ "KL of " (name) " by layer, in nats per sequence: " (parts.join(", ")) } {
            @for (l, row) in rows.iter().enumerate() {
                @let top = 2.0 + height * l as f64;
                text.end x=(left - 6.0) y=(top + height / 2.0 + 4.5) { "layer " (l + 1) }
                @for (k, &value) in row.iter().enumerate() {
                    rect.cell x=(px(left + width * k as f64)) y=(px(top)) width=(px(width - 1.0)) height=(px(height - 1.0))
                        fill-opacity=(format!("{:.3}", if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 })) {
                        title { "layer " (l + 1) ", latent " (k + 1) ": " (format!("{value:.3}")) " nats" }
                    }
                }
            }
            @for k in (0..columns).step_by(every) {
                text.middle x=(px(left + width * (k as f64 + 0.5))) y=(under + 14.0) { (k + 1) }
            }
        }
    }
}

/// A linear axis.
struct Axis {
    ends: [f64; 2],
    pixels: [f64; 2],
}

impl Axis {
    /// Over all values, which are finite, with a little room at both ends.
    fn new(values: impl Iterator<Item = f64>, pixels: [f64; 2]) -> Self {
        let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let room = match most - least {
            width if width > 0.0 => 0.03 * width,
            _ => 0.5 * least.abs().max(1.0),
        };
        // Nothing here is below zero, so neither is an axis.
        let start = if least >= 0.0 { (least - room).max(0.0) } else { least - room };
        Self { ends: [start, most + room], pixels }
    }

    fn at(&self, value: f64) -> f64 {
        let [a, b] = self.pixels;
        a + (b - a) * (value - self.ends[0]) / (self.ends[1] - self.ends[0])
    }

    /// About six round values.
    fn ticks(&self) -> Vec<f64> {
        let width = (self.ends[1] - self.ends[0]) / 7.0;
        let unit = 10f64.powf(width.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|digit| digit * unit).into_iter().find(|step| *step >= width).unwrap_or(width);
        let (first, last) = ((self.ends[0] / step).ceil() as i64, (self.ends[1] / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

/// A line through points, broken where one is missing.
fn path(points: &[[f64; 2]], x: &Axis, y: &Axis) -> String {
    let mut path = String::new();
    let mut pen = 'M';
    for &[a, b] in points {
        if b.is_finite() && a.is_finite() {
            path.push_str(&format!("{pen}{} {}", px(x.at(a)), px(y.at(b))));
            pen = 'L';
        } else {
            pen = 'M';
        }
    }
    path
}

/// A tenth of a unit is finer than anybody sees.
fn px(x: f64) -> String {
    let text = format!("{x:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_string)
}

/// `0.25`, `1500`, `20 k`, `1.5 M`.
pub fn number(x: f64) -> String {
    let (scale, unit) = match x.abs() {
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e4.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    let text = format!("{:.4}", x / scale);
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_and_their_numbers() {
        let axis = Axis::new([0.0, 100.0].into_iter(), [56.0, 468.0]);
        assert_eq!((axis.at(0.0), axis.at(103.0)), (56.0, 468.0));
        assert_eq!(axis.ticks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(Axis::new([2.0].into_iter(), [0.0, 1.0]).ends, [1.0, 3.0]);
        assert_eq!(
            [0.25, 0.0, 1500.0, 20_000.0, 1.5e6, 0.30000000000000004].map(number),
            ["0.25", "0", "1500", "20 k", "1.5 M", "0.3"]
        );
    }

    #[test]
    fn lines_break_where_numbers_are_missing_and_names_are_escaped() {
        let line = vec![[1.0, 3.0], [2.0, f64::NAN], [3.0, 2.0], [4.0, 1.0]];
        let series = Series { run: 8, name: "a<b>\"", line, marks: vec![[4.0, 1.5]] };
        let chart = Chart { title: "T & Z", x: "steps", y: "nats", series: vec![series] };
        let svg = chart.figure().into_string();
        assert_eq!(svg.matches('M').count(), 3, "{svg}");
        assert!(
            svg.contains("class=\"c1 d0\"")
                && svg.contains("a&lt;b&gt;&quot;: from 3.000 to 1.000 at 4, held out 1.500 at 4"),
            "{svg}"
        );
        assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("<b>"), "{svg}");
        let none = Series { run: 0, name: "a", line: vec![[1.0, f64::NAN]], marks: Vec::new() };
        assert_eq!(Chart { series: vec![none], ..chart }.figure().into_string(), "");
    }

    #[test]
    fn every_latent_has_its_cell() {
        let svg = heat("run", &[&[0.5, 1.0], &[0.0, 0.25]], 1.0).into_string();
        assert_eq!(svg.matches("<rect").count(), 4);
        assert!(svg.contains("layer 2, latent 2: 0.250 nats") && svg.contains("layer 1 1.50, layer 2 0.25"), "{svg}");
        assert!(!heat("run", &[&[0.0]], 0.0).into_string().contains("NaN"));
    }
}
