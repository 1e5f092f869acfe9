//! Pictures of lines and points over linear or logarithmic axes, as SVG without references to anything else.
//!
//! Colours are written into the picture as they look on white; a style sheet exchanges them where the reader's screen is
//! dark. [`Plot::file`] carries that sheet itself, [`Plot::inline`] relies on the page to contain [`style`].

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write;
use std::ops::Range;

/// Colours of the series on white and on black. They differ in brightness too, and most eyes can tell them apart (Okabe and
/// Ito 2008).
const COLOURS: [[u32; 2]; 7] = [
    [0x0072b2, 0x4da8e8],
    [0xd55e00, 0xff8a3d],
    [0x009e73, 0x2ec79b],
    [0xb0559b, 0xe08cc8],
    [0x2f8fc9, 0x8fd0ff],
    [0xa97500, 0xe6b143],
    [0x464646, 0xc4c4c4],
];
const PAPER: [u32; 2] = [0xffffff, 0x15171a];
const INK: [u32; 2] = [0x1c1c1c, 0xe6e6e3];
const SOFT: [u32; 2] = [0x5a5a5a, 0xa3a6aa];
const RULE: [u32; 2] = [0xdcdcdc, 0x3b3f45];

/// Lengths of a dash and of the gap behind it, in pixels.
const STROKES: [(u32, u32); 4] = [(1, 0), (9, 5), (2, 4), (16, 4)];

/// Height of a line of the legend, in pixels.
const LINE: u32 = 19;
/// Width of a letter of the legend: nobody knows the font, so this is generous.
const LETTER: u32 = 7;
/// Width of the sample of a line in front of its name.
const SAMPLE: u32 = 34;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// In proportion.
    Linear,
    /// By their logarithm; values of 0 and below are left out.
    Log,
}

/// An axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What is written along it.
    pub name: String,
    /// How values lie along it.
    pub scale: Scale,
    /// Where it is labelled; at round values if this is empty.
    pub ticks: Vec<f64>,
}

/// Colour and stroke of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Number of a colour; the last of the seven is grey.
    pub colour: usize,
    /// Number of a stroke: solid, dashed, dotted, long dashes.
    pub stroke: usize,
}

impl Look {
    /// The look of number `i` of several equal series. The first 28 differ, and neighbours differ in their strokes too.
    pub fn of(i: usize) -> Self {
        Self { colour: i % COLOURS.len(), stroke: i % STROKES.len() }
    }

    fn rgb(self) -> RGBColor {
        rgb(COLOURS[self.colour % COLOURS.len()])
    }
}

/// A point that stands out.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Its place, `[x, y]`.
    pub at: [f64; 2],
    /// Half the length of a vertical error bar; none if this is not a number.
    pub error: f64,
    /// Whether it is a ring, not a disc.
    pub hollow: bool,
    /// A short label beside it, where there is room.
    pub label: String,
}

impl Mark {
    /// A disc without label and error bar.
    pub fn new(x: f64, y: f64) -> Self {
        Self { at: [x, y], error: f64::NAN, hollow: false, label: String::new() }
    }
}

/// Points with a common name.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its entry in the legend.
    pub name: String,
    /// How it is drawn.
    pub look: Look,
    /// A line through these points, broken at coordinates that are not finite.
    pub line: Vec<[f64; 2]>,
    /// Points that stand out.
    pub marks: Vec<Mark>,
}

/// A picture.
#[derive(Clone, Debug)]
pub struct Plot {
    /// What stands above it.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What it shows.
    pub series: Vec<Series>,
    /// Lines under the legend.
    pub notes: Vec<String>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ruler, Ruler>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Plot {
    /// The picture with title and legend, as a file of its own.
    pub fn file(&self) -> String {
        let legend = self.series.iter().map(|series| &series.name).chain(&self.notes);
        let (lines, letters) = legend.fold((0, 0), |(n, most), line| (n + 1, most.max(line.chars().count() as u32)));
        let (width, height) = (720 + SAMPLE + LETTER * letters + 20, 560.max(100 + LINE * lines));
        let svg = canvas((width, height), |root| {
            root.fill(&rgb(PAPER))?;
            let root = root.titled(&printable(&self.title), ("sans-serif", 18).into_font().color(&rgb(INK)))?;
            let (left, right) = root.split_horizontally(720);
            self.axes_and_series(&left)?;
            for (i, series) in self.series.iter().enumerate() {
                let at = 30 + (LINE * i as u32) as i32;
                sample(&right, series.look, !series.marks.is_empty(), at)?;
                text(&right, &series.name, (SAMPLE as i32 + 6, at), HPos::Left, rgb(INK))?;
            }
            for (i, note) in self.notes.iter().enumerate() {
                text(&right, note, (0, 40 + (LINE * (self.series.len() + i) as u32) as i32), HPos::Left, rgb(SOFT))?;
            }
            Ok(())
        });
        svg.replacen(">\n", &format!("><style>{}</style>\n", style()), 1)
    }

    /// The picture for a page, which says the title and which look is whose.
    pub fn inline(&self) -> String {
        canvas((480, 300), |root| self.axes_and_series(root))
    }

    /// Whether there is anything to draw.
    pub fn is_empty(&self) -> bool {
        self.points().next().is_none()
    }

    /// The picture in words, for readers who do not see it.
    pub fn words(&self) -> String {
        let mut words = format!("{}: {} against {}.", self.title, self.y.name, self.x.name);
        for Series { name, line, marks, .. } in &self.series {
            if let [first, .., last] = line[..] {
                words += &format!(" {name}: from {:.3} to {:.3} at {}.", first[1], last[1], number(last[0]));
            }
            if let Some(last) = marks.last() {
                words += &format!(" {name}: the last point is {:.3} at {}.", last.at[1], number(last.at[0]));
            }
        }
        words
    }

    /// All points that have a place, with the ends of error bars.
    fn points(&self) -> impl Iterator<Item = [f64; 2]> {
        let of = |series: &Series| {
            let ends = |mark: &Mark| [0.0, mark.error, -mark.error].map(|error| [mark.at[0], mark.at[1] + error]);
            let marks = series.marks.iter().flat_map(ends);
            series.line.iter().copied().chain(marks).collect::<Vec<_>>()
        };
        self.series.iter().flat_map(of).filter(|&point| self.has_place(point))
    }

    fn has_place(&self, [x, y]: [f64; 2]) -> bool {
        self.x.scale.place(x).is_finite() && self.y.scale.place(y).is_finite()
    }

    fn axes_and_series(&self, area: &Area<'_>) -> Drawn {
        let x = Ruler::new(&self.x, self.points().map(|point| point[0]));
        let y = Ruler::new(&self.y, self.points().map(|point| point[1]));
        let mut chart =
            ChartBuilder::on(area).margin(12).x_label_area_size(44).y_label_area_size(64).build_cartesian_2d(x, y)?;
        let letters = |colour| ("sans-serif", 13).into_font().color(&rgb(colour));
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(rgb(RULE))
            .axis_style(rgb(SOFT))
            .x_desc(printable(&self.x.name))
            .y_desc(printable(&self.y.name))
            .label_style(letters(SOFT))
            .axis_desc_style(letters(INK))
            .draw()?;
        for series in &self.series {
            let colour = series.look.rgb();
            for part in series.line.split(|&point| !self.has_place(point)).filter(|part| part.len() > 1) {
                let part: Vec<(f64, f64)> = part.iter().map(|&point| point.into()).collect();
                let (dash, gap) = STROKES[series.look.stroke % STROKES.len()];
                if gap == 0 {
                    chart.draw_series(LineSeries::new(part, colour.stroke_width(2)))?;
                } else {
                    chart.draw_series(DashedLineSeries::new(part, dash, gap, colour.stroke_width(2)))?;
                }
            }
            for mark in series.marks.iter().filter(|mark| self.has_place(mark.at)) {
                let [x, y] = mark.at;
                if self.has_place([x, y - mark.error]) {
                    chart.draw_series([PathElement::new(vec![(x, y - mark.error), (x, y + mark.error)], colour)])?;
                }
                if mark.hollow {
                    chart.draw_series([Circle::new((x, y), 4, rgb(PAPER).filled())])?;
                    chart.draw_series([Circle::new((x, y), 4, colour.stroke_width(2))])?;
                } else {
                    chart.draw_series([Circle::new((x, y), 4, colour.filled())])?;
                }
            }
        }
        self.labels(area, &chart)
    }

    /// Labels around their marks, each at the nearest place that is free.
    fn labels(&self, area: &Area<'_>, chart: &Chart<'_, '_>) -> Drawn {
        let (left, top) = area.get_base_pixel();
        let marks = self.series.iter().flat_map(|series| series.marks.iter().map(move |mark| (series.look, mark)));
        let marks = marks.filter(|(_, mark)| self.has_place(mark.at)).map(|(look, mark)| {
            let (x, y) = chart.backend_coord(&mark.at.into());
            (look, &mark.label, (x - left, y - top))
        });
        let marks: Vec<_> = marks.collect();
        let mut taken: Vec<(i32, i32)> = marks.iter().map(|(_, _, place)| *place).collect();
        for (look, label, (x, y)) in marks.into_iter().filter(|(_, label, _)| !label.is_empty()) {
            let rings = (1..6).flat_map(|ring| (0..12).map(move |i| (13.0 * f64::from(ring), 30.0 * f64::from(i))));
            let mut spots = rings.map(|(far, degrees)| {
                let (sin, cos) = (degrees - 60.0).to_radians().sin_cos();
                (x + (far * cos) as i32, y + (far * sin) as i32)
            });
            let free = |&(a, b): &(i32, i32)| taken.iter().all(|t| (t.0 - a).abs() > 15 || (t.1 - b).abs() > 10);
            let spot = spots.find(free).unwrap_or((x + 13, y));
            taken.push(spot);
            if (spot.0 - x).abs().max((spot.1 - y).abs()) > 14 {
                area.draw(&PathElement::new(vec![(x, y), spot], rgb(RULE)))?;
            }
            text(area, label, spot, HPos::Center, look.rgb())?;
        }
        Ok(())
    }
}

impl Axis {
    /// A linear axis with round ticks.
    pub fn linear(name: &str) -> Self {
        Self { name: name.into(), scale: Scale::Linear, ticks: Vec::new() }
    }

    /// A logarithmic axis with round ticks.
    pub fn log(name: &str) -> Self {
        Self { name: name.into(), scale: Scale::Log, ticks: Vec::new() }
    }
}

impl Scale {
    /// Where a value lies: not finite if it has no place.
    fn place(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }

    fn value(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Log => 10f64.powf(place),
        }
    }
}

/// An axis over some values.
struct Ruler {
    scale: Scale,
    /// Places of both ends.
    ends: [f64; 2],
    ticks: Vec<f64>,
}

impl Ruler {
    /// Over all values, with a little room at both ends.
    fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
        let scale = axis.scale;
        let places = values.map(|value| scale.place(value)).filter(|place| place.is_finite());
        let (least, most) = places.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        let (least, most) = if least > most { (0.0, 1.0) } else { (least, most) };
        let room = match (scale, most - least) {
            (_, width) if width > 0.0 => 0.03 * width,
            (Scale::Linear, _) => 0.5 * least.abs().max(1.0),
            (Scale::Log, _) => 0.3,
        };
        // An axis of values that cannot be below zero does not begin there.
        let start = if scale == Scale::Linear && least >= 0.0 { (least - room).max(0.0) } else { least - room };
        let mut ruler = Self { scale, ends: [start, most + room], ticks: axis.ticks.clone() };
        if ruler.ticks.is_empty() {
            ruler.ticks = ruler.round();
        }
        ruler
    }

    /// Round values: evenly spaced, or 1, 2 and 5 of every decade where there are several.
    fn round(&self) -> Vec<f64> {
        let [start, end] = self.ends.map(|place| self.scale.value(place));
        if self.scale == Scale::Log && end / start > 12.0 {
            let digits: &[f64] = if end / start > 3e3 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let decades = start.log10().floor() as i32..=end.log10().ceil() as i32;
            let all = decades.flat_map(|power| digits.iter().map(move |digit| digit * 10f64.powi(power)));
            return all.filter(|tick| (start..=end).contains(tick)).collect();
        }
        let width = (end - start) / 7.0;
        let unit = 10f64.powf(width.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|digit| digit * unit).into_iter().find(|step| *step >= width).unwrap_or(width);
        let (first, last) = ((start / step).ceil() as i64, (end / step).floor() as i64);
        (first..=last).map(|i| i as f64 * step).collect()
    }
}

impl Ranged for Ruler {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let [start, end] = self.ends;
        low + (f64::from(high - low) * (self.scale.place(*value) - start) / (end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.scale.value(self.ends[0])..self.scale.value(self.ends[1])
    }
}

impl ValueFormatter<f64> for Ruler {
    fn format(value: &f64) -> String {
        number(*value)
    }
}

/// `0.25`, `1500`, `20 k`, `1.5 M`: at most four digits.
pub fn number(x: f64) -> String {
    let (scale, unit) = match x.abs() {
        1e12.. => (1e12, " T"),
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e4.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    let value = x / scale;
    let places = (3 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.places$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
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
    canvas((SAMPLE, 14), |root| sample(root, look, true, 7))
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
    for left in (0..SAMPLE).step_by((dash + gap) as usize) {
        let right = (left + dash).min(SAMPLE);
        area.draw(&PathElement::new(vec![(left as i32, at), (right as i32, at)], look.rgb().stroke_width(2)))?;
    }
    if has_marks {
        area.draw(&Circle::new((SAMPLE as i32 / 2, at), 4, look.rgb().filled()))?;
    }
    Ok(())
}

fn text(area: &Area<'_>, words: &str, at: (i32, i32), anchor: HPos, colour: RGBColor) -> Drawn {
    let style = ("sans-serif", 13).into_font().color(&colour).pos(Pos::new(anchor, VPos::Center));
    area.draw(&Text::new(printable(words), at, style))
}

/// Text without the control characters that no XML may contain.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

fn rgb([light, _]: [u32; 2]) -> RGBColor {
    RGBColor((light >> 16) as u8, (light >> 8) as u8, light as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(x: Axis, y: Axis, line: &[[f64; 2]], marks: Vec<Mark>) -> Plot {
        let series = Series { name: "a<b> & \"c\"\0".into(), look: Look::of(0), line: line.to_vec(), marks };
        Plot { title: "T & <Z>".into(), x, y, series: vec![series], notes: vec!["a note".into()] }
    }

    #[test]
    fn pictures_are_xml_with_every_point_that_has_a_place() {
        let line = [[1.0, 3.0], [2.0, 2.5], [3.0, f64::NAN], [4.0, 2.0], [8.0, 1.0]];
        let marks = vec![Mark { error: 0.5, ..Mark::new(2.0, 3.0) }, Mark { hollow: true, ..Mark::new(0.0, 2.0) }];
        for (x, y, rings) in [(Axis::linear("x"), Axis::linear("y"), 1), (Axis::log("x"), Axis::log("y"), 0)] {
            let plot = plot(x, y, &line, marks.clone());
            let svg = plot.file();
            let xml = roxmltree::Document::parse(&svg).unwrap();
            let all = |name| xml.descendants().filter(move |node| node.has_tag_name(name));
            // A ring is two circles; the legend has a disc.
            assert_eq!(all("circle").count(), 1 + 2 * rings + 1, "{svg}");
            // The line in two parts; axes, ticks and the sample of the legend are lines of two points each.
            let texts: Vec<_> = all("text").filter_map(|node| node.text()).map(str::trim).collect();
            for text in ["T & <Z>", "a<b> & \"c\"\u{FFFD}", "a note", "x", "y"] {
                assert!(texts.contains(&text), "{text:?}: {texts:?}");
            }
            assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("href"), "{svg}");
            assert!(svg.contains("[fill=\"#FFFFFF\"] { fill: #15171a }"), "{svg}");
            assert!(plot.words().ends_with("from 3.000 to 1.000 at 8. a<b> & \"c\"\0: the last point is 2.000 at 0."));
        }
        let none = plot(Axis::log("x"), Axis::log("y"), &[[0.0, 1.0]], Vec::new());
        assert!(none.is_empty() && roxmltree::Document::parse(&none.inline()).is_ok());
    }

    #[test]
    fn labels_keep_their_distance() {
        let marks = (1..20).map(|i| Mark { label: i.to_string(), ..Mark::new(1.0, 1.0 + 0.01 * f64::from(i)) });
        let plot = plot(Axis::linear("x"), Axis::linear("y"), &[[0.0, 0.0], [2.0, 9.0]], marks.collect());
        let svg = plot.inline();
        let xml = roxmltree::Document::parse(&svg).unwrap();
        let grey = format!("#{:06X}", COLOURS[0][0]);
        let texts = xml.descendants().filter(|n| n.has_tag_name("text") && n.attribute("fill") == Some(&grey));
        let number = |node: roxmltree::Node<'_, '_>, key| node.attribute(key).unwrap().parse::<i32>().unwrap();
        let places: Vec<_> = texts.map(|node| (number(node, "x"), number(node, "y"))).collect();
        assert_eq!(places.len(), 19);
        for (i, a) in places.iter().enumerate() {
            assert!(places[..i].iter().all(|b| (a.0 - b.0).abs() > 15 || (a.1 - b.1).abs() > 10), "{places:?}");
        }
    }

    #[test]
    fn axes_are_round() {
        let ruler = |axis: Axis, values: &[f64]| Ruler::new(&axis, values.iter().copied());
        for (axis, values, ticks) in [
            (Axis::linear(""), &[0.0, 100.0][..], &[0.0, 20.0, 40.0, 60.0, 80.0, 100.0][..]),
            (Axis::linear(""), &[2.0], &[1.0, 1.5, 2.0, 2.5, 3.0]),
            (Axis::log(""), &[8.0, 210.0], &[10.0, 20.0, 50.0, 100.0, 200.0]),
            (Axis::log(""), &[0.0, 0.9, 3e4], &[1.0, 10.0, 100.0, 1000.0, 10_000.0]),
            (Axis { ticks: vec![3.0], ..Axis::log("") }, &[2.0, 4.0], &[3.0]),
        ] {
            assert_eq!(ruler(axis.clone(), values).ticks, ticks, "{axis:?}");
        }
        let log = ruler(Axis::log(""), &[1.0, 10.0, 100.0]);
        assert_eq!([1.0, 10.0, 100.0].map(|x| log.map(&x, (0, 1060))), [30, 530, 1030]);
        assert_eq!(
            [0.25, 0.0, 1500.0, 20_000.0, 1.5e6, 0.1 + 0.2, 418.43, 0.015].map(number),
            ["0.25", "0", "1500", "20 k", "1.5 M", "0.3", "418.4", "0.015"]
        );
    }

    #[test]
    fn ten_looks_differ() {
        let looks: Vec<Look> = (0..28).map(Look::of).collect();
        assert!((0..28).all(|i| looks[..i].iter().all(|other| *other != looks[i])));
        assert_ne!(swatch(looks[0]), swatch(looks[1]));
    }
}
