//! The picture of a report: an SVG with bars for rates and curves for latencies.
//!
//! Written by hand, since it is some lines and texts. Rates are drawn together by their unit, each
//! with the least and the most of its rounds; latencies over the percentile, on scales of tens.

use std::fmt::Write as _;
use std::fs;
use std::io;

use super::report::Line;

const WIDTH: f64 = 1000.0;
const MARGIN: f64 = 20.0;
/// Where bars and curves begin: names stand left of it.
const LEFT: f64 = 470.0;
const ROW: f64 = 24.0;
const CURVES_HEIGHT: f64 = 360.0;
const COLOURS: [&str; 8] = [
    "#1b6ca8", "#d1495b", "#2e933c", "#edae49", "#6a4c93", "#00798c", "#8d6a9f", "#5c5c5c",
];
/// The percentiles of a curve, evenly far from one another.
const PERCENTILES: [(&str, f64); 9] = [
    ("0", 0.0),
    ("50", 50.0),
    ("75", 75.0),
    ("90", 90.0),
    ("95", 95.0),
    ("99", 99.0),
    ("99.9", 99.9),
    ("99.99", 99.99),
    ("max", 100.0),
];

/// Writes the picture to a file.
pub(super) fn write(path: &str, title: &str, lines: &[Line]) -> io::Result<()> {
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
    fs::write(path, picture(title, lines)).map_err(explain)
}

fn picture(title: &str, lines: &[Line]) -> String {
    let mut body = Body {
        text: String::new(),
        at: MARGIN + 16.0,
    };
    body.label(MARGIN, "start", 16, title);
    let (curves, bars): (Vec<&Line>, Vec<&Line>) = lines
        .iter()
        .partition(|line| line.percentile(50.0).is_some());
    let mut units: Vec<&str> = Vec::new();
    for line in &bars {
        if !units.contains(&line.unit()) {
            units.push(line.unit());
        }
    }
    for unit in units {
        let of_unit: Vec<&Line> = bars
            .iter()
            .filter(|line| line.unit() == unit)
            .copied()
            .collect();
        body.bars(unit, &of_unit);
    }
    if !curves.is_empty() {
        body.curves(&curves);
    }
    let height = body.at + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         {}</svg>\n",
        body.text
    )
}

/// What is drawn, from top to bottom.
struct Body {
    text: String,
    /// How far down it is.
    at: f64,
}

impl Body {
    fn add(&mut self, shape: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = writeln!(self.text, "{shape}");
    }

    fn label(&mut self, x: f64, anchor: &str, size: u32, text: &str) {
        let (y, text) = (self.at, escaped(text));
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\">{text}\
             </text>"
        ));
    }

    fn bars(&mut self, unit: &str, lines: &[&Line]) {
        self.at += 2.0 * ROW;
        self.label(MARGIN, "start", 14, unit);
        let most = lines
            .iter()
            .map(|line| line.values().2)
            .fold(1e-9, f64::max);
        let scale = (WIDTH - MARGIN - 60.0 - LEFT) / most;
        for line in lines {
            self.at += ROW;
            let (median, least, most) = line.values();
            let (top, middle) = (self.at - 13.0, self.at - 5.0);
            let (from, to) = (LEFT + least * scale, LEFT + most * scale);
            self.label(LEFT - 8.0, "end", 11, &line.name);
            self.add(format_args!(
                "<rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{}\"/>\n\
                 <path d=\"M{from:.1} {middle:.1}H{to:.1}\" stroke=\"black\"/>",
                median * scale,
                COLOURS[0]
            ));
            self.label(to + 6.0, "start", 11, &format!("{median:.2}"));
        }
    }

    fn curves(&mut self, lines: &[&Line]) {
        self.at += 2.0 * ROW;
        self.label(MARGIN, "start", 14, "latency in µs, by percentile");
        let value = |line: &Line, percentile: f64| line.percentile(percentile).unwrap_or(0.0);
        let least = lines
            .iter()
            .map(|line| value(line, 0.0))
            .fold(f64::MAX, f64::min);
        let most = lines
            .iter()
            .map(|line| value(line, 100.0))
            .fold(0.1, f64::max);
        // Whole tens around everything.
        let (low, high) = (least.max(0.001).log10().floor(), most.log10().ceil());
        let high = high.max(low + 1.0);
        let (top, left) = (self.at + 10.0, MARGIN + 60.0);
        let width = WIDTH - MARGIN - left;
        let x = |index: usize| left + width * index as f64 / (PERCENTILES.len() - 1) as f64;
        let y = |value: f64| top + CURVES_HEIGHT * (high - value.max(0.001).log10()) / (high - low);
        for ten in low as i32..=high as i32 {
            let value = 10f64.powi(ten);
            self.at = y(value);
            self.add(format_args!(
                "<path d=\"M{left:.1} {:.1}H{:.1}\" stroke=\"#dddddd\"/>",
                y(value),
                WIDTH - MARGIN
            ));
            self.label(left - 6.0, "end", 11, &value.to_string());
        }
        self.at = top + CURVES_HEIGHT + 16.0;
        for (index, (name, _)) in PERCENTILES.iter().enumerate() {
            self.label(x(index), "middle", 11, name);
        }
        for (number, line) in lines.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let points: Vec<String> = PERCENTILES
                .iter()
                .enumerate()
                .map(|(index, (_, percentile))| {
                    format!("{:.1},{:.1}", x(index), y(value(line, *percentile)))
                })
                .collect();
            self.add(format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            ));
            self.at += ROW;
            let (top, left) = (self.at - 10.0, left + 20.0);
            self.add(format_args!(
                "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"12\" height=\"12\" \
                 fill=\"{colour}\"/>"
            ));
            self.label(left + 20.0, "start", 11, &line.name);
        }
    }
}

/// A text as XML has it.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::report::{Figure, latencies};

    #[test]
    fn a_picture_has_a_bar_or_a_curve_for_every_line() {
        let rate = |count| Figure::rate("M pairs/s", count, Duration::from_secs(1));
        let mut late = latencies();
        late.saturating_record(1500);
        let lines = [
            Line {
                name: "a <rate> & more".to_owned(),
                figures: vec![rate(1_000_000), rate(3_000_000)],
            },
            Line {
                name: "a latency".to_owned(),
                figures: vec![Figure::latency(late)],
            },
        ];
        let picture = picture("title", &lines);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("a &lt;rate&gt; &amp; more"));
        assert!(picture.contains(">2.00</text>"));
        assert_eq!(picture.matches("<polyline").count(), 1);
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }
}
