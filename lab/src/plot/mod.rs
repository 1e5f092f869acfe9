//! Pictures of lines and points over linear or logarithmic axes, as SVG without references to anything else.
//!
//! Colours are written into the picture as they look on white; a style sheet exchanges them where the reader's screen is
//! dark. [`Plot::file`] carries that sheet itself, [`Plot::inline`] relies on the page to contain [`style`].

mod axis;

pub use axis::{Axis, Scale, number};

use axis::Ruler;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::fmt::Write;

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

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        self.points().next().is_none()
    }

    /// The picture in words, for readers who do not see it.
    pub fn words(&self) -> String {
        let mut words = format!("{}: {} against {}.", self.title, self.y.name, self.x.name);
        let is_finite = |point: &[f64; 2]| point.iter().all(|x| x.is_finite());
        for Series { name, line, marks, .. } in &self.series {
            let line: Vec<_> = line.iter().copied().filter(is_finite).collect();
            if let [first, .., last] = line[..] {
                words += &format!(" {name}: from {:.3} to {:.3} at {}.", first[1], last[1], number(last[0]));
            }
            if let Some([x, y]) = marks.iter().map(|mark| mark.at).rfind(is_finite) {
                words += &format!(" {name}: the last point is {y:.3} at {}.", number(x));
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
        let line = [[1.0, 3.0], [2.0, 2.5], [3.0, f64::NAN], [4.0, 2.0], [8.0, 1.0], [9.0, f64::NAN]];
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
    fn ten_looks_differ() {
        let looks: Vec<Look> = (0..28).map(Look::of).collect();
        assert!((0..28).all(|i| looks[..i].iter().all(|other| *other != looks[i])));
        assert_ne!(swatch(looks[0]), swatch(looks[1]));
    }
}
