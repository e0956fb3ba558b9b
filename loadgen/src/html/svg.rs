//! Charts: a plane with two axes, and what is drawn on it.
//!
//! Letters shrink with the drawing they stand in, so a chart is drawn twice, for wide windows and for narrow ones; the
//! style sheet shows the one that fits.

use std::fmt::Display;

use super::axis::Axis;
use super::markup::Element;

/// A chart without its curves.
#[derive(Debug)]
pub struct Chart {
    /// What it shows, for those who hear it.
    pub title: &'static str,
    /// The same in sentences, with figures.
    pub description: String,
    /// From left to right.
    pub x: Axis,
    /// What the horizontal axis counts.
    pub x_title: &'static str,
    /// From the bottom to the top.
    pub y: Axis,
    /// What the vertical axis counts.
    pub y_title: &'static str,
}

/// A size that a chart is drawn in, in units that are about a pixel.
#[derive(Debug)]
struct Size {
    class: &'static str,
    width: f64,
    height: f64,
    x_ticks_max: usize,
    y_ticks_max: usize,
}

const SIZES: [Size; 2] = [
    Size { class: "wide", width: 960.0, height: 330.0, x_ticks_max: 13, y_ticks_max: 8 },
    Size { class: "narrow", width: 380.0, height: 280.0, x_ticks_max: 9, y_ticks_max: 7 },
];

/// Room around the plane, for labels and titles.
const LEFT: f64 = 66.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;
/// About how wide a character of a label is.
const CHARACTER: f64 = 7.5;

impl Chart {
    /// Draws it with what `curves` puts on its plane.
    pub fn draw(&self, curves: impl Fn(&Plane<'_>) -> Vec<Element>) -> Element {
        let drawings = SIZES.iter().map(|size| {
            let plane = Plane { chart: self, size };
            Element::new("svg")
                .class(size.class)
                .with("viewBox", format_args!("0 0 {} {}", size.width, size.height))
                .with("role", "img")
                .with("aria-label", self.title)
                .child(Element::new("title").text(self.title))
                .child(Element::new("desc").text(&self.description))
                .children(plane.horizontal_axis())
                .children(plane.vertical_axis())
                .children(curves(&plane))
        });
        Element::new("div").class("chart").children(drawings)
    }
}

/// Where values become places.
#[derive(Debug)]
pub struct Plane<'a> {
    chart: &'a Chart,
    size: &'a Size,
}

impl Plane<'_> {
    /// The place of a value on the horizontal axis.
    pub fn x(&self, value: f64) -> f64 {
        LEFT + self.chart.x.fraction(value) * (self.right() - LEFT)
    }

    /// The place of a value on the vertical axis.
    pub fn y(&self, value: f64) -> f64 {
        self.floor() - self.chart.y.fraction(value) * (self.floor() - TOP)
    }

    /// Where the vertical axis begins.
    pub fn floor(&self) -> f64 {
        self.size.height - BOTTOM
    }

    fn right(&self) -> f64 {
        self.size.width - RIGHT
    }

    /// A line through points, open where one is missing; a point between two gaps is a dot.
    pub fn line(&self, series: usize, points: impl IntoIterator<Item = Option<(f64, f64)>>) -> Element {
        let mut path = String::new();
        let mut pen_is_down = false;
        for point in points {
            if let Some((x, y)) = point {
                // A stretch of no length gives the first point its round ends.
                let (command, end) = if pen_is_down { ("L", "") } else { ("M", "h0") };
                path.push_str(&format!("{command}{:.1} {:.1}{end}", self.x(x), self.y(y)));
            }
            pen_is_down = point.is_some();
        }
        Element::new("path").class(class_of(series)).with("d", path)
    }

    fn horizontal_axis(&self) -> Vec<Element> {
        let axis = &self.chart.x;
        let mut drawn = Vec::new();
        let mut free_from = f64::NEG_INFINITY;
        for tick in axis.ticks(self.size.x_ticks_max) {
            let (x, label) = (self.x(tick), axis.label(tick));
            drawn.push(stroke("grid", format_args!("M{x:.1} {TOP}V{:.1}", self.floor())));
            let half = label.chars().count() as f64 * CHARACTER / 2.0;
            // A label that would touch the one before it is left out, its line stays.
            if x - half >= free_from {
                let within = x.min(self.size.width - half);
                drawn.push(label_at(within, self.floor() + 18.0, "middle", &label));
                free_from = x + half + CHARACTER;
            }
        }
        drawn.push(stroke("axis", format_args!("M{LEFT} {0:.1}H{1:.1}", self.floor(), self.right())));
        drawn.push(label_at(self.right(), self.size.height - 10.0, "end", self.chart.x_title));
        drawn
    }

    fn vertical_axis(&self) -> Vec<Element> {
        let axis = &self.chart.y;
        let mut drawn = Vec::new();
        for tick in axis.ticks(self.size.y_ticks_max) {
            let y = self.y(tick);
            drawn.push(stroke("grid", format_args!("M{LEFT} {y:.1}H{:.1}", self.right())));
            drawn.push(label_at(LEFT - 8.0, y + 4.5, "end", &axis.label(tick)));
        }
        drawn.push(label_at(4.0, 14.0, "start", self.chart.y_title));
        drawn
    }
}

/// Colours in the style sheet, and as many kinds of dashes.
const COLOURS: usize = 6;

/// The colour of a series.
pub fn colour_of(series: usize) -> String {
    format!("s{}", series % COLOURS)
}

/// Colour and dashes of the line of a series: no two of the first 36 share both.
fn class_of(series: usize) -> String {
    format!("line {} d{}", colour_of(series), (series + series / COLOURS) % COLOURS)
}

/// A stroked path of its class.
pub fn stroke(class: impl Display, path: impl Display) -> Element {
    Element::new("path").class(class).with("d", path)
}

fn label_at(x: f64, y: f64, anchor: &'static str, label: &str) -> Element {
    Element::new("text")
        .with("x", format_args!("{x:.1}"))
        .with("y", format_args!("{y:.1}"))
        .with("text-anchor", anchor)
        .text(label)
}

/// What each series of a chart is called, beside a piece of its line.
pub fn legend<'a>(names: impl IntoIterator<Item = (usize, &'a str)>) -> Element {
    let entries = names.into_iter().map(|(series, name)| Element::new("li").child(sample(series)).text(name));
    Element::new("ul").class("legend").children(entries)
}

/// A piece of the line of a series.
pub fn sample(series: usize) -> Element {
    Element::new("svg")
        .class("sample")
        .with("viewBox", "0 0 34 12")
        .with("aria-hidden", "true")
        .child(Element::new("path").class(class_of(series)).with("d", "M2 6H32"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::html::markup::tests::check_well_formed;

    fn chart() -> Chart {
        Chart {
            title: "Latency",
            description: "p50 < p99".to_owned(),
            x: Axis::elapsed(100.0),
            x_title: "seconds",
            y: Axis::rate([10.0].into_iter()),
            y_title: "records/s",
        }
    }

    #[test]
    fn a_chart_says_what_it_shows() {
        let text = chart().draw(|plane| vec![plane.line(1, [Some((0.0, 0.0))])]).to_string();
        check_well_formed(&text).unwrap();
        assert_eq!(text.matches("<title>Latency</title><desc>p50 &lt; p99</desc>").count(), SIZES.len());
        assert_eq!(text.matches("class=\"line s1 d1\"").count(), SIZES.len());
    }

    #[test]
    fn a_line_has_gaps_and_dots() {
        let chart = chart();
        let plane = Plane { chart: &chart, size: &SIZES[0] };
        let points = [Some((0.0, 0.0)), Some((100.0, 10.0)), None, Some((50.0, 5.0))];
        let line = plane.line(0, points).to_string();
        assert!(line.contains("d=\"M66.0 280.0h0L940.0 30.0M503.0 155.0h0\""), "{line}");
    }

    #[test]
    fn lines_are_told_apart() {
        let classes: std::collections::BTreeSet<String> = (0..36).map(class_of).collect();
        assert_eq!(classes.len(), 36);
    }

    #[test]
    fn labels_that_would_touch_are_left_out() {
        let chart = Chart { x: Axis::percentiles(1e9), ..chart() };
        let labels = |size| {
            let drawn = Plane { chart: &chart, size }.horizontal_axis();
            drawn.iter().filter(|element| element.to_string().starts_with("<text")).count()
        };
        assert!(labels(&SIZES[1]) < labels(&SIZES[0]));
    }
}
