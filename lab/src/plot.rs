//! Plots of lines and points over linear or logarithmic axes, as self-contained SVG.
//!
//! The picture has colours for a white background; a style sheet replaces them on dark screens. [`Plot::file`] contains
//! the style sheet; a page with [`Plot::inline`] must contain [`style`].

use crate::table::{number, visible};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write;
use std::ops::Range;

/// Colours of the series on white and on black: blue, orange, green, pink, violet, brown (yellow on black) and grey. A
/// test measures that readers with red-green colour blindness can also distinguish them.
const COLOURS: [[u32; 2]; 7] = [
    [0x116fd7, 0x2882ff],
    [0xfa6401, 0xe16421],
    [0x00a969, 0x21dd7f],
    [0xad73a6, 0xcf74a2],
    [0x400462, 0xb7b5ff],
    [0x783a00, 0xf2de41],
    [0x2d2d2d, 0xe8e8e8],
];
const PAPER: [u32; 2] = [0xffffff, 0x15171a];
const INK: [u32; 2] = [0x1c1c1c, 0xe6e6e3];
const SOFT: [u32; 2] = [0x5a5a5a, 0xa3a6aa];
const RULE: [u32; 2] = [0xdcdcdc, 0x3b3f45];

/// Lengths of a dash and of the gap after it, in pixels. The mark of a legend's sample covers no first gap.
const STROKES: [(u32, u32); 4] = [(1 << 20, 0), (7, 4), (2, 4), (15, 5)];

/// Distance of a label to the right of its mark, in pixels.
const BESIDE: i32 = 7;
/// Least distance of labels of lines, in pixels.
const APART: i32 = 12;
/// Height of a line of the legend, in pixels.
const LINE: u32 = 19;
/// Width of a letter of the legend; generous, because the font is unknown.
const LETTER: u32 = 7;
/// Width of the line sample before its name.
const SAMPLE: u32 = 46;
/// Space for labels to the right of the axes, in pixels.
const BEHIND: u32 = 30;

/// Colour and stroke of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// Number of a colour; the last of the seven is grey.
    pub colour: usize,
    /// Number of a stroke: solid, dashed, dotted, long dashes.
    pub stroke: usize,
}

impl Look {
    /// The last look, for a series that is not one of several equal ones.
    pub const LAST: Self = Self { colour: COLOURS.len() - 1, stroke: STROKES.len() - 1 };

    /// The look of number `i` of several equal series. The first 27 differ from each other and from [`LAST`](Self::LAST), and
    /// neighbours differ in their strokes too.
    pub fn of(i: usize) -> Self {
        Self { colour: i % COLOURS.len(), stroke: i % STROKES.len() }
    }

    fn rgb(self) -> RGBColor {
        rgb(COLOURS[self.colour % COLOURS.len()])
    }
}

/// A marked point.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its place, `[x, y]`.
    pub at: [f64; 2],
    /// Half the length of a vertical error bar; NaN for none.
    pub error: f64,
    /// Whether it is a ring, not a disc.
    pub hollow: bool,
    /// A short label beside it, if there is space.
    pub label: String,
}

impl Mark {
    /// A disc without label and error bar.
    pub fn new(x: f64, y: f64) -> Self {
        Self { at: [x, y], error: f64::NAN, hollow: false, label: String::new() }
    }
}

/// Points with a common name.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its entry in the legend.
    pub name: String,
    /// How it is drawn.
    pub look: Look,
    /// A line through these points, broken at coordinates that are not finite.
    pub line: Vec<[f64; 2]>,
    /// A thin pale line behind all others: the values whose mean is `line`.
    pub pale: Vec<[f64; 2]>,
    /// A short label at the end of `line`; none if this is empty.
    pub label: String,
    /// Marked points.
    pub marks: Vec<Mark>,
}

/// A picture.
#[derive(Clone, Debug, Default)]
pub struct Plot {
    /// The title.
    pub title: String,
    /// Labels of the horizontal and the vertical axis.
    pub axes: [String; 2],
    /// Whether both axes are logarithmic; then values of 0 and below are left out.
    pub is_log: bool,
    /// Ticks of the horizontal axis; round values if empty.
    pub ticks: Vec<f64>,
    /// The end of the vertical axis, if it should not include all points; lines then leave through the upper edge.
    pub top: Option<f64>,
    /// The series.
    pub series: Vec<Series>,
    /// Lines under the legend.
    pub notes: Vec<String>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Plot {
    /// The picture with title and legend, as a separate file.
    pub fn file(&self) -> String {
        let legend = self.series.iter().map(|series| &series.name).chain(&self.notes);
        let (lines, letters) = legend.fold((0, 0), |(n, most), line| (n + 1, most.max(line.chars().count() as u32)));
        let (width, height) = (720 + SAMPLE + LETTER * letters + 20, 560.max(100 + LINE * lines));
        let svg = canvas((width, height), |root| {
            root.fill(&rgb(PAPER))?;
            let root = root.titled(&visible(&self.title), ("sans-serif", 18).into_font().color(&rgb(INK)))?;
            let (left, right) = root.split_horizontally(720);
            self.axes_and_series(&left)?;
            for (i, series) in self.series.iter().enumerate() {
                let at = 30 + (LINE * i as u32) as i32;
                sample(&right, series.look, !series.marks.is_empty(), at)?;
                text(&right, &series.name, (SAMPLE as i32 + 6, at), INK)?;
            }
            for (i, note) in self.notes.iter().enumerate() {
                text(&right, note, (0, 40 + (LINE * (self.series.len() + i) as u32) as i32), SOFT)?;
            }
            Ok(())
        });
        svg.replacen(">\n", &format!("><style>{}</style>\n", style()), 1)
    }

    /// The picture for a page, which has its own title and legend.
    pub fn inline(&self) -> String {
        canvas((480, 300), |root| self.axes_and_series(root))
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.places().next().is_none()
    }

    /// The places of all drawable points, with the ends of error bars.
    fn places(&self) -> impl Iterator<Item = (f64, f64)> {
        let of = |series: &Series| {
            let ends = |mark: &Mark| [0.0, mark.error, -mark.error].map(|error| [mark.at[0], mark.at[1] + error]);
            let marks = series.marks.iter().flat_map(ends);
            series.line.iter().chain(&series.pale).copied().chain(marks).collect::<Vec<_>>()
        };
        self.series.iter().flat_map(of).filter_map(|point| self.place(point))
    }

    /// The position of a point along both axes.
    fn place(&self, point: [f64; 2]) -> Option<(f64, f64)> {
        let [x, y] = if self.is_log { point.map(f64::log10) } else { point };
        (x.is_finite() && y.is_finite()).then_some((x, y))
    }

    fn value(&self, place: f64) -> f64 {
        if self.is_log { 10f64.powf(place) } else { place }
    }

    /// An axis over some places with small margins, with ticks at `ticks` or at round values.
    fn axis(&self, places: impl Iterator<Item = f64>, ticks: &[f64]) -> Axis {
        let (least, most) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let (least, most) = if least > most { (0.0, 1.0) } else { (least, most) };
        let own = [self.value(least)];
        let ticks = if ticks.is_empty() && least == most { &own } else { ticks };
        let room = match most - least {
            width if width > 0.0 => 0.03 * width,
            _ if self.is_log => 0.3,
            _ => 0.5 * least.abs().max(1.0),
        };
        // An axis of non-negative values does not begin below zero.
        let start = if !self.is_log && least >= 0.0 { (least - room).max(0.0) } else { least - room };
        let end = most + room;
        let ticks =
            if ticks.is_empty() { round(self.value(start), self.value(end), self.is_log) } else { ticks.to_vec() };
        let ticks: Vec<f64> = ticks.into_iter().map(|tick| if self.is_log { tick.log10() } else { tick }).collect();
        Axis { ends: start..end, ticks }
    }

    fn axes_and_series(&self, area: &Area<'_>) -> Drawn {
        let x = self.axis(self.places().map(|place| place.0), &self.ticks);
        let top = self.top.and_then(|top| self.place([1.0, top])).map_or(f64::INFINITY, |place| place.1);
        let y = self.axis(self.places().map(|place| place.1).filter(|y| *y <= top), &[]);
        let edge = y.ends.end;
        let behind = if self.series.iter().any(|series| !series.label.is_empty()) { BEHIND } else { 0 };
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .margin_right(12 + behind)
            .x_label_area_size(44)
            .y_label_area_size(80)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_label_formatter(&|place| number(self.value(*place)))
            .y_label_formatter(&|place| number(self.value(*place)))
            .bold_line_style(rgb(RULE))
            .axis_style(rgb(SOFT))
            .x_desc(visible(&self.axes[0]))
            .y_desc(visible(&self.axes[1]))
            .label_style(letters(rgb(SOFT), HPos::Left))
            .axis_desc_style(letters(rgb(INK), HPos::Left))
            .draw()?;
        for series in &self.series {
            let colour = series.look.rgb().mix(0.3);
            chart.draw_series(self.parts(&series.pale, edge).into_iter().map(|part| PathElement::new(part, colour)))?;
        }
        for series in &self.series {
            let colour = series.look.rgb();
            for part in self.parts(&series.line, edge) {
                let (dash, gap) = STROKES[series.look.stroke % STROKES.len()];
                // A single point is a line of zero length: draw a dot, unless there is a mark.
                let is_marked = series.marks.iter().any(|mark| self.place(mark.at) == Some(part[0]));
                let dot = (part.len() == 1 && !is_marked).then(|| Circle::new(part[0], 2, colour.filled()));
                chart.draw_series(dot)?;
                chart.draw_series([DashedPathElement::new(part, dash, gap, colour.stroke_width(2))])?;
            }
            for mark in &series.marks {
                let Some(at) = self.place(mark.at).filter(|place| place.1 <= edge) else { continue };
                let [x, y] = mark.at;
                if let [Some(low), Some(high)] = [-mark.error, mark.error].map(|error| self.place([x, y + error])) {
                    chart.draw_series([PathElement::new(vec![low, high], colour)])?;
                }
                if mark.hollow {
                    chart.draw_series([Circle::new(at, 4, rgb(PAPER).filled())])?;
                    chart.draw_series([Circle::new(at, 4, colour.stroke_width(2))])?;
                } else {
                    chart.draw_series([Circle::new(at, 4, colour.filled())])?;
                }
            }
        }
        // A label is above its mark, at the end of a line upwards, as high as needed to avoid marks and other labels.
        let marks = self.series.iter().flat_map(|series| series.marks.iter().map(move |mark| (series.look, mark)));
        let marks = marks.filter_map(|(look, mark)| Some((look, &mark.label, self.place(mark.at)?)));
        let marks: Vec<_> = marks.filter(|(_, _, place)| place.1 <= edge).collect();
        let mut taken: Vec<(i32, i32)> = marks.iter().map(|(_, _, place)| chart.backend_coord(place)).collect();
        for (look, label, place) in marks.into_iter().filter(|(_, label, _)| !label.is_empty()) {
            let (x, y) = chart.backend_coord(&place);
            let x = x + BESIDE;
            let free = |up: &i32| taken.iter().all(|t| (t.0 - x).abs() > 15 || (t.1 - y + up).abs() > 10);
            let up = (12..).find(free).expect("there is room above all");
            taken.push((x, y - up));
            let label = Text::new(label.clone(), (BESIDE, -up), letters(look.rgb(), HPos::Center));
            chart.draw_series([EmptyElement::at(place) + label])?;
        }
        // Labels of lines stand after their ends, connected by a stroke; those of lines that end together in one column.
        let labelled = self.series.iter().filter(|series| !series.label.is_empty());
        let ends = labelled.filter_map(|series| {
            let end = *self.parts(&series.line, edge).last()?.last()?;
            Some((chart.backend_coord(&end), end, series))
        });
        let mut ends: Vec<_> = ends.collect();
        ends.sort_by_key(|(at, ..)| at.0);
        for column in ends.chunk_by_mut(|one, next| next.0.0 - one.0.0 < BEHIND as i32) {
            let right = column.iter().map(|(at, ..)| at.0).max().unwrap_or_default();
            column.sort_by_key(|(at, ..)| at.1);
            let heights: Vec<i32> = column.iter().map(|(at, ..)| at.1).collect();
            let places = apart(&heights, chart.plotting_area().get_pixel_range().1);
            for (((x, y), end, series), place) in column.iter().zip(places) {
                let (on, by, colour) = (right - x, place - y, series.look.rgb());
                let stroke = PathElement::new([(5, 0), (on + 10, by)], colour);
                let label = Text::new(visible(&series.label), (on + 12, by), letters(colour, HPos::Left));
                chart.draw_series([EmptyElement::at(*end) + stroke + label])?;
            }
        }
        Ok(())
    }

    /// The points of a line's unbroken parts, clipped at the upper `edge`.
    fn parts(&self, line: &[[f64; 2]], edge: f64) -> Vec<Vec<(f64, f64)>> {
        let mut parts = vec![Vec::new()];
        let mut before = None;
        for place in line.iter().map(|&point| self.place(point)) {
            let part = parts.last_mut().expect("there is one");
            if let (Some((x0, y0)), Some((x1, y1))) = (before, place)
                && (y0 > edge) != (y1 > edge)
            {
                part.push((x0 + (x1 - x0) * (edge - y0) / (y1 - y0), edge));
            }
            match place {
                Some(place) if place.1 <= edge => part.push(place),
                _ => parts.push(Vec::new()),
            }
            before = place;
        }
        parts.retain(|part| !part.is_empty());
        parts
    }
}

/// Places for labels at these sorted heights, in their order and at least [`APART`] from each other. Labels that are too
/// near move together, as little as possible, within `room` if they fit.
fn apart(heights: &[i32], room: Range<i32>) -> Vec<i32> {
    let step = |i: usize| APART * i as i32;
    // Groups of labels with no space between them: the sum of where each would have the group begin, and their number.
    let mut groups: Vec<(i32, i32)> = Vec::new();
    for (i, y) in heights.iter().enumerate() {
        groups.push((y - step(i), 1));
        while let [.., above, below] = groups[..]
            && above.0 * below.1 > below.0 * above.1
        {
            groups.truncate(groups.len() - 2);
            groups.push((above.0 + below.0, above.1 + below.1));
        }
    }
    let last = room.end - step(heights.len().saturating_sub(1));
    let starts = groups.iter().flat_map(|&(sum, count)| (0..count).map(move |_| sum.div_euclid(count)));
    starts.enumerate().map(|(i, start)| start.min(last).max(room.start) + step(i)).collect()
}

/// An axis: the places of its ends and of its labels.
struct Axis {
    ends: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, (low, high): (i32, i32)) -> i32 {
        let Range { start, end } = self.ends;
        low + (f64::from(high - low) * (place - start) / (end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.ends.clone()
    }
}

/// Round values: evenly spaced, or 1, 2 and 5 of every decade if there are several decades.
fn round(start: f64, end: f64, is_log: bool) -> Vec<f64> {
    if is_log && end / start > 12.0 {
        let digits: &[f64] = if end / start > 3e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let decades = start.log10().floor() as i32..=end.log10().ceil() as i32;
        let all = decades.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
        return all.filter(|tick| (start..=end).contains(tick)).collect();
    }
    let width = (end - start) / 7.0;
    let unit = 10f64.powf(width.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * unit).into_iter().find(|step| *step >= width).unwrap_or(width);
    let (first, last) = ((start / step).ceil() as i64, (end / step).floor() as i64);
    (first..=last).map(|i| i as f64 * step).collect()
}

/// The style sheet that gives pictures other colours on dark screens.
pub fn style() -> String {
    let mut style = "@media screen and (prefers-color-scheme: dark) {".to_string();
    for [light, dark] in COLOURS.into_iter().chain([PAPER, INK, SOFT, RULE]) {
        for key in ["fill", "stroke"] {
            write!(style, " [{key}=\"#{light:06X}\"] {{ {key}: #{dark:06x} }}")
                .expect("writing to a string does not fail");
        }
    }
    style + " }"
}

/// The sample of a look, as a picture for a page's legend.
pub fn swatch(look: Look) -> String {
    canvas((SAMPLE, 14), |root| sample(root, look, false, 7))
}

fn canvas(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    draw(&root).and_then(|()| root.present()).expect("drawing into a string does not fail");
    drop(root);
    svg
}

fn sample(area: &Area<'_>, look: Look, has_marks: bool, at: i32) -> Drawn {
    let (dash, gap) = STROKES[look.stroke % STROKES.len()];
    area.draw(&DashedPathElement::new([(0, at), (SAMPLE as i32, at)], dash, gap, look.rgb().stroke_width(2)))?;
    if has_marks {
        area.draw(&Circle::new((SAMPLE as i32 / 2, at), 4, look.rgb().filled()))?;
    }
    Ok(())
}

fn text(area: &Area<'_>, words: &str, at: (i32, i32), colour: [u32; 2]) -> Drawn {
    area.draw(&Text::new(visible(words), at, letters(rgb(colour), HPos::Left)))
}

fn letters(colour: RGBColor, anchor: HPos) -> TextStyle<'static> {
    ("sans-serif", 13).into_font().color(&colour).pos(Pos::new(anchor, VPos::Center))
}

fn rgb([light, _]: [u32; 2]) -> RGBColor {
    RGBColor((light >> 16) as u8, (light >> 8) as u8, light as u8)
}

#[cfg(test)]
mod tests;
