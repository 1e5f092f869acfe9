//! A sweep's figures as self-contained SVG.

use engine::{Error, Result};
use lab::sweep::{Figure, Line};
use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::ops::Range;

const SIZE: (u32, u32) = (960, 560);
/// The legend stands right of the plot.
const LEGEND: u32 = 250;
/// Colours that differ in brightness too and are told apart by most eyes (Okabe and Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(70, 70, 70),
];
const GREY: RGBColor = RGBColor(90, 90, 90);

/// The picture of a figure with at least one point: both axes logarithmic.
///
/// # Errors
/// None that numbers more than 0 can cause.
pub fn draw(figure: &Figure) -> Result<String> {
    let mut svg = String::new();
    paint(figure, &mut svg).map_err(|e| Error::new(format!("cannot draw {}: {e}", figure.name)))?;
    Ok(svg)
}

type Painted = std::result::Result<(), Box<dyn std::error::Error>>;

fn paint(figure: &Figure, svg: &mut String) -> Painted {
    let marks = || figure.lines.iter().flat_map(|line| &line.marks);
    // A baseline has no fast steps: it is a level, not a point.
    let xs: Vec<f64> = marks().map(|mark| mark.x).filter(|&x| x > 0.0).collect();
    let ends = marks().flat_map(|mark| match mark.error.is_finite() {
        true => [mark.y - mark.error, mark.y + mark.error],
        false => [mark.y, mark.y],
    });
    let ys: Vec<f64> = ends.chain(figure.least).filter(|&y| y > 0.0).collect();
    let (x, y) = (range(&xs, 1.15), range(&ys, 1.03));
    let x_ticks = if figure.name == "flops" { ticks(&x) } else { own_ticks(&xs) };
    let y_ticks = ticks(&y);

    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND);
    let mut chart = ChartBuilder::on(&left)
        .caption(&figure.title, ("sans-serif", 18))
        .margin(14)
        .x_label_area_size(48)
        .y_label_area_size(70)
        .build_cartesian_2d(
            x.clone().log_scale().with_key_points(x_ticks),
            y.clone().log_scale().with_key_points(y_ticks),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(224, 224, 224))
        .x_desc(figure.axis)
        .y_desc("perplexity, at most")
        .x_label_formatter(&|x| number(*x))
        .y_label_formatter(&|y| number(*y))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    for (i, line) in figure.lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let stroke = if line.exact { Stroke::Dashed } else { Stroke::Solid };
        let (dash, pause, width) = stroke.pattern();
        let style = colour.stroke_width(width);
        if let Some(level) = level(line) {
            chart.draw_series(DashedLineSeries::new([(x.start, level), (x.end, level)], dash, pause, style))?;
            continue;
        }
        let points: Vec<(f64, f64)> = line.marks.iter().map(|mark| (mark.x, mark.y)).collect();
        match stroke {
            Stroke::Solid => chart.draw_series(LineSeries::new(points.clone(), style))?,
            _ => chart.draw_series(DashedLineSeries::new(points.clone(), dash, pause, style))?,
        };
        chart.draw_series(points.iter().map(|&at| Circle::new(at, 4, colour.filled())))?;
        let bars = line.marks.iter().filter(|mark| mark.error.is_finite());
        chart.draw_series(bars.map(|mark| {
            let ends = [(mark.x, (mark.y - mark.error).max(y.start)), (mark.x, mark.y + mark.error)];
            PathElement::new(ends.to_vec(), colour.stroke_width(1))
        }))?;
    }
    if let Some(least) = figure.least {
        let (dash, pause, width) = Stroke::Dotted.pattern();
        let ends = [(x.start, least), (x.end, least)];
        chart.draw_series(DashedLineSeries::new(ends, dash, pause, GREY.stroke_width(width)))?;
    }
    let mut legend = Legend { area: &right, at: 60 };
    for (i, line) in figure.lines.iter().enumerate() {
        let stroke = if line.exact { Stroke::Dashed } else { Stroke::Solid };
        let mark = if level(line).is_some() { None } else { Some(4) };
        legend.entry(&line.label, COLOURS[i % COLOURS.len()], stroke, mark)?;
    }
    if figure.least.is_some() {
        legend.entry("the least possible", GREY, Stroke::Dotted, None)?;
    }
    legend.at += 10;
    legend.words("points: elbo, an upper bound;")?;
    legend.words("bars: standard error")?;
    root.present()?;
    Ok(())
}

/// The height of a line whose points have no place on the horizontal axis.
fn level(line: &Line) -> Option<f64> {
    line.marks.iter().find(|mark| mark.x <= 0.0).map(|mark| mark.y)
}

/// How a line is drawn.
#[derive(Clone, Copy)]
enum Stroke {
    /// A bound.
    Solid,
    /// Exact.
    Dashed,
    /// The truth.
    Dotted,
}

impl Stroke {
    /// Length of a dash and of the pause behind it, and width, in pixels.
    fn pattern(self) -> (u32, u32, u32) {
        match self {
            Self::Solid => (30, 0, 2),
            Self::Dashed => (7, 5, 2),
            Self::Dotted => (2, 4, 1),
        }
    }
}

struct Legend<'a, 'b> {
    area: &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>,
    at: i32,
}

impl Legend<'_, '_> {
    fn entry(&mut self, label: &str, colour: RGBColor, stroke: Stroke, mark: Option<u32>) -> Painted {
        let (dash, pause, width) = stroke.pattern();
        for left in (4..30).step_by((dash + pause) as usize) {
            let dash = vec![(left, self.at), ((left + dash as i32).min(30), self.at)];
            self.area.draw(&PathElement::new(dash, colour.stroke_width(width)))?;
        }
        if let Some(radius) = mark {
            self.area.draw(&Circle::new((17, self.at), radius, colour.filled()))?;
        }
        self.text(38, label)
    }

    fn words(&mut self, words: &str) -> Painted {
        self.text(4, words)
    }

    fn text(&mut self, left: i32, words: &str) -> Painted {
        let style = ("sans-serif", 13).into_font().color(&RGBColor(40, 40, 40)).pos(Pos::new(HPos::Left, VPos::Center));
        self.area.draw(&Text::new(words.to_string(), (left, self.at), style))?;
        self.at += 22;
        Ok(())
    }
}

/// From below the least to above the largest value, by a factor.
fn range(values: &[f64], margin: f64) -> Range<f64> {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    if values.is_empty() { 1.0..10.0 } else { least / margin..most * margin }
}

/// The values themselves, where they are few.
fn own_ticks(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.dedup();
    if values.len() > 8 { ticks(&range(&values, 1.0)) } else { values }
}

/// Round numbers: evenly spaced within a decade or so, 1, 2 and 5 of every decade over more.
fn ticks(range: &Range<f64>) -> Vec<f64> {
    if range.end / range.start > 12.0 {
        let decades = range.start.log10().floor() as i32..=range.end.log10().ceil() as i32;
        let all = decades.flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power)));
        return all.filter(|tick| range.contains(tick)).collect();
    }
    let width = (range.end - range.start) / 8.0;
    let unit = 10f64.powf(width.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * unit).into_iter().find(|step| *step >= width).unwrap_or(width);
    let first = (range.start / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= range.end).collect()
}

/// `1.25`, `40`, `2.5 M`: at most four digits.
fn number(x: f64) -> String {
    let (scale, unit) = match x {
        1e12.. => (1e12, " T"),
        1e9.. => (1e9, " G"),
        1e6.. => (1e6, " M"),
        1e4.. => (1e3, " k"),
        _ => (1.0, ""),
    };
    let value = x / scale;
    let digits = (3 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6) as usize;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab::sweep::Mark;

    fn figure(marks: Vec<Mark>) -> Figure {
        let line = |label: &str, marks: Vec<Mark>, exact| Line { label: label.into(), exact, marks };
        let level = Mark { x: 0.0, y: 2.5, error: f64::NAN };
        let lines = vec![line("a < b & c", marks, false), line("AR", vec![level], true)];
        Figure { name: "steps", title: "T & \"Z\"".into(), axis: "fast steps T", lines, least: Some(1.2) }
    }

    #[test]
    fn pictures_are_whole_and_without_numbers_that_are_none() {
        let marks = vec![Mark { x: 2.0, y: 3.0, error: 0.1 }, Mark { x: 8.0, y: 2.0, error: f64::NAN }];
        for marks in [marks.clone(), marks[1..].to_vec(), Vec::new()] {
            let count = marks.len();
            let svg = draw(&figure(marks)).unwrap();
            let xml = roxmltree::Document::parse(&svg).unwrap();
            assert_eq!(xml.root_element().tag_name().name(), "svg");
            assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("href"), "{svg}");
            assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
            assert_eq!(svg.matches("<circle").count(), count + 1, "{svg}");
        }
    }

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(ticks(&(1.9..3.1)), [2.0, 2.2, 2.4000000000000004, 2.6, 2.8000000000000003, 3.0]);
        assert_eq!(ticks(&(8.0..210.0)), [10.0, 20.0, 50.0, 100.0, 200.0]);
        assert_eq!([1.25, 40.0, 512_000.0, 2.5e6, 0.015].map(number), ["1.25", "40", "512 k", "2.5 M", "0.015"]);
    }
}
