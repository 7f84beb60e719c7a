//! Lines, bars and lanes over time, as SVG.

use std::fmt::Write as _;

use crate::clock::TrueNs;

/// Units of the drawing, which the browser scales.
pub const WIDTH: f64 = 1000.0;
/// Left of this, names; right of it, time.
pub const LEFT: f64 = 118.0;
const RIGHT: f64 = 12.0;
const TICKS_MAX: f64 = 12.0;

/// The time that every chart of a page shows.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: TrueNs,
    pub to: TrueNs,
}

impl Span {
    /// Where an instant lies.
    pub fn x(self, at: TrueNs) -> f64 {
        let at = at.clamp(self.from, self.to);
        let part = (at - self.from) as f64 / (self.to - self.from).max(1) as f64;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn seconds(self) -> f64 {
        (self.to - self.from) as f64 / 1e9
    }

    /// Vertical lines every so many seconds, with their time below.
    pub fn grid(self, top: f64, bottom: f64) -> String {
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0]
            .into_iter()
            .find(|step| self.seconds() / step <= TICKS_MAX)
            .unwrap_or(600.0);
        let mut svg = String::new();
        let mut second = 0.0;
        while second <= self.seconds() {
            let x = self.x(self.from + (second * 1e9) as TrueNs);
            write!(
                svg,
                "<line class=grid x1={x:.1} x2={x:.1} y1={top:.1} y2={bottom:.1} /><text class=tick x={x:.1} y={:.1} text-anchor=middle>{second:.0} s</text>",
                bottom + 13.0
            )
            .expect("into a String");
            second += step;
        }
        svg
    }

    /// A vertical mark at an instant.
    pub fn mark(self, at: TrueNs, class: &str, top: f64, bottom: f64, title: &str) -> String {
        let x = self.x(at);
        format!(
            "<line class=\"{class}\" x1={x:.1} x2={x:.1} y1={top:.1} y2={bottom:.1}><title>{}</title></line>",
            escape(title)
        )
    }

    /// A bar from one instant to another; never too thin to see.
    pub fn bar(self, from: TrueNs, to: TrueNs, top: f64, height: f64, class: &str, title: &str) -> String {
        let (left, right) = (self.x(from), self.x(to));
        format!(
            "<rect class=\"{class}\" x={left:.1} y={top:.1} width={:.1} height={height:.1} rx=2><title>{}</title></rect>",
            (right - left).max(2.5),
            escape(title)
        )
    }
}

/// A vertical axis from `low` to `high` between two heights.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub low: f64,
    pub high: f64,
    pub top: f64,
    pub bottom: f64,
}

impl Axis {
    /// Where a value lies.
    pub fn y(self, value: f64) -> f64 {
        let part = (value - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE);
        self.bottom - part.clamp(0.0, 1.0) * (self.bottom - self.top)
    }

    /// Its ends' values, left of the chart.
    pub fn labels(self, unit: &str) -> String {
        let label = |value: f64| {
            let y = self.y(value) + 4.0;
            format!(
                "<text class=tick x={:.1} y={y:.1} text-anchor=end>{}{unit}</text>",
                LEFT - 6.0,
                number(value)
            )
        };
        let zero = if self.low < 0.0 && self.high > 0.0 { label(0.0) } else { String::new() };
        format!("{}{zero}{}", label(self.low), label(self.high))
    }

    /// A line through points.
    pub fn line(self, span: Span, points: &[(TrueNs, f64)], class: &str) -> String {
        let mut path = String::new();
        for (index, (at, value)) in points.iter().enumerate() {
            let command = if index == 0 { 'M' } else { 'L' };
            write!(path, "{command}{:.1} {:.1}", span.x(*at), self.y(*value)).expect("into a String");
        }
        format!("<path class=\"{class}\" d=\"{path}\" />")
    }
}

/// A chart of its own height.
pub fn svg(height: f64, label: &str, inside: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=img aria-label=\"{}\">{inside}</svg>\n",
        escape(label)
    )
}

/// A number as short as it may be.
pub fn number(value: f64) -> String {
    if value.abs() >= 100.0 || (value - value.round()).abs() < 0.005 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// Text that is safe within HTML and its attributes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
