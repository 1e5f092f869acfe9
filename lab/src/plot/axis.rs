//! Linear and logarithmic axes, where their ticks are, and how numbers stand beside them.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

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
    pub(super) fn place(self, value: f64) -> f64 {
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
pub(super) struct Ruler {
    scale: Scale,
    /// Places of both ends.
    ends: [f64; 2],
    ticks: Vec<f64>,
}

impl Ruler {
    /// Over all values, with a little room at both ends.
    pub(super) fn new(axis: &Axis, values: impl Iterator<Item = f64>) -> Self {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
