use super::*;

fn plot(is_log: bool, line: &[[f64; 2]], marks: Vec<Mark>) -> Plot {
    let series =
        Series { name: "a<b> & \"c\"\0".into(), look: Look::of(0), line: line.to_vec(), marks, ..Series::default() };
    let axes = ["x", "y"].map(String::from);
    let notes = vec!["a note".into()];
    Plot { title: "T & <Z>".into(), axes, is_log, series: vec![series], notes, ..Plot::default() }
}

#[test]
fn axes_are_round() {
    for (is_log, values, ticks) in [
        (false, &[0.0, 100.0][..], &["0", "20", "40", "60", "80", "100"][..]),
        (false, &[2.0], &["2"]),
        (true, &[8.0, 210.0], &["10", "20", "50", "100", "200"]),
        (true, &[0.0, 0.9, 3e4], &["1", "10", "100", "1000", "10 k"]),
    ] {
        let plot = plot(is_log, &values.iter().map(|&x| [x, 1.0]).collect::<Vec<_>>(), Vec::new());
        let axis = plot.axis(plot.places().map(|place| place.0), &[]);
        let found: Vec<String> = axis.ticks.iter().map(|&place| number(plot.value(place))).collect();
        assert_eq!(found, ticks);
    }
}

#[test]
fn pictures_are_xml_with_every_point_that_has_a_place() {
    let line = [[1.0, 3.0], [2.0, 2.5], [3.0, f64::NAN], [4.0, 2.0], [8.0, 1.0], [9.0, f64::NAN]];
    let marks = vec![Mark { error: 0.5, ..Mark::new(2.0, 3.0) }, Mark { hollow: true, ..Mark::new(0.0, 2.0) }];
    for (is_log, rings) in [(false, 1), (true, 0)] {
        let plot = plot(is_log, &line, marks.clone());
        let svg = plot.file();
        let xml = roxmltree::Document::parse(&svg).unwrap();
        let all = |name| xml.descendants().filter(move |node| node.has_tag_name(name));
        // A ring is two circles; the legend has a disc.
        assert_eq!(all("circle").count(), 1 + 2 * rings + 1, "{svg}");
        // The line in two parts; axes, ticks and the sample of the legend are lines of two points each.
        let texts: Vec<_> = all("text").filter_map(|node| node.text()).map(str::trim).collect();
        for text in ["T & <Z>", "a<b> & \"c\"\\x00", "a note", "x", "y"] {
            assert!(texts.contains(&text), "{text:?}: {texts:?}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("href"), "{svg}");
        assert!(svg.contains("[fill=\"#FFFFFF\"] { fill: #15171a }"), "{svg}");
    }
    let none = plot(true, &[[0.0, 1.0]], Vec::new());
    assert!(none.is_empty() && roxmltree::Document::parse(&none.inline()).is_ok());
}

/// The texts of a picture that begin with `start`, with their heights.
fn heights(svg: &str, start: &str) -> Vec<(String, i32)> {
    let xml = roxmltree::Document::parse(svg).unwrap();
    let texts = xml.descendants().filter_map(|node| Some((node.text()?.trim(), node.attribute("y")?.parse().ok()?)));
    texts.filter(|(text, _)| text.starts_with(start)).map(|(text, y)| (text.to_string(), y)).collect()
}

#[test]
fn the_labels_of_lines_that_end_together_stand_apart() {
    let series = |i: usize| Series {
        look: Look::of(i),
        line: vec![[0.0, i as f64], [9.0, 5.0 + 1e-3 * i as f64]],
        label: format!("no{i}"),
        ..Series::default()
    };
    let plot = Plot { series: (0..12).map(series).collect(), ..Plot::default() };
    let mut found = heights(&plot.inline(), "no");
    found.sort_by_key(|(_, y)| *y);
    assert!(found.len() == 12 && found.windows(2).all(|pair| pair[1].1 - pair[0].1 > 10), "{found:?}");
}

#[test]
fn labels_keep_their_order_and_move_little() {
    for (heights, places) in [
        (&[][..], &[][..]),
        (&[50, 90], &[50, 90]),
        (&[50, 50, 50], &[38, 50, 62]),
        (&[50, 52, 90], &[45, 57, 90]),
        (&[100, 100], &[88, 100]),
        (&[1, 1], &[1, 13]),
    ] {
        assert_eq!(apart(heights, 1..100), places, "{heights:?}");
    }
}

#[test]
fn looks_differ() {
    let looks: Vec<Look> = (0..27).map(Look::of).chain([Look::LAST]).collect();
    assert!(looks.iter().enumerate().all(|(i, look)| !looks[..i].contains(look)), "{looks:?}");
}

/// By distance in CIELAB, where 2 can just be seen, and the matrices of Machado, Oliveira and Fernandes (2009).
#[test]
fn colours_differ_for_all_eyes() {
    type Matrix = [[f64; 3]; 3];
    let times = |m: &Matrix, x: [f64; 3]| m.map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>());
    let linear = |hex: u32| {
        [16, 8, 0].map(|shift| {
            let c = f64::from(hex >> shift & 255) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        })
    };
    let lab = |rgb| {
        let xyz = times(&[[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8727]], rgb);
        let [x, y, z] = xyz.map(|t| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 });
        [116.0 * y, 500.0 * (x - y), 200.0 * (y - z)]
    };
    let all_cones = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let without_red = [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]];
    let without_green = [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]];
    for (eyes, screen) in [all_cones, without_red, without_green].iter().flat_map(|eyes| [(eyes, 0), (eyes, 1)]) {
        let seen = COLOURS.map(|colour| lab(times(eyes, linear(colour[screen]))));
        for (i, a) in seen.iter().enumerate() {
            for (j, b) in seen[..i].iter().enumerate() {
                let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                assert!(distance > 25.0, "{i} and {j} on screen {screen}: {distance}, {eyes:?}");
            }
        }
    }
}

#[test]
fn lines_leave_through_the_upper_edge() {
    let line = [[0.0, 9.0], [1.0, 1.0], [2.0, 3.0], [3.0, f64::NAN], [4.0, 9.0], [5.0, 2.0]];
    let mut plot = plot(false, &line, vec![Mark::new(0.0, 9.0), Mark::new(2.0, 3.0)]);
    let expected = [vec![(0.75, 3.0), (1.0, 1.0), (2.0, 3.0)], vec![(4.0 + 6.0 / 7.0, 3.0), (5.0, 2.0)]];
    assert_eq!(plot.parts(&line, 3.0), expected);
    plot.top = Some(3.0);
    let svg = plot.inline();
    // The frame ends slightly above 3, so the mark at 9 is outside.
    assert!(heights(&svg, "9").is_empty() && heights(&svg, "2.5").len() == 1, "{svg}");
    assert_eq!(svg.matches("<circle").count(), 1, "{svg}");
}

#[test]
fn labels_keep_their_distance() {
    let marks = (1..20).map(|i| Mark { label: format!("no{i}"), ..Mark::new(1.0, 1.0 + 0.01 * f64::from(i)) });
    let svg = plot(false, &[[0.0, 0.0], [2.0, 9.0]], marks.collect()).inline();
    let mut heights: Vec<i32> = heights(&svg, "no").into_iter().map(|(_, y)| y).collect();
    heights.sort_unstable();
    assert!(heights.len() == 19 && heights.windows(2).all(|pair| pair[1] - pair[0] > 10), "{heights:?}");
}
