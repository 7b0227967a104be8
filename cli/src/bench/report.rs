//! What was measured, and how it is shown: a table or JSON.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart: an hour.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// The percentiles that are shown.
pub(super) const PERCENTILES: [(&str, f64); 4] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// A histogram of nanoseconds with three digits.
pub(super) fn latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("the bounds are in order")
}

/// What one round of one row has found.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) unit: &'static str,
    /// A rate, or the median of the latencies in microseconds.
    pub(super) value: f64,
    /// How many messages that was.
    pub(super) count: u64,
    pub(super) latencies: Option<Histogram<u64>>,
    /// What else is to be said: messages lost, late.
    pub(super) notes: Vec<(&'static str, f64)>,
}

impl Figure {
    /// So many in such a time, in millions a second.
    pub(super) fn rate(unit: &'static str, count: u64, spent: Duration) -> Self {
        Self {
            unit,
            value: count as f64 / spent.as_secs_f64().max(1e-9) / 1e6,
            count,
            latencies: None,
            notes: Vec::new(),
        }
    }

    /// Latencies in nanoseconds.
    pub(super) fn latency(latencies: Histogram<u64>) -> Self {
        Self {
            unit: "µs",
            value: latencies.value_at_percentile(50.0) as f64 / 1e3,
            count: latencies.len(),
            latencies: Some(latencies),
            notes: Vec::new(),
        }
    }
}

/// A row with the figures of its rounds.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) figures: Vec<Figure>,
}

/// Median, least and most.
pub(super) fn middle(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(most)) = (values.first(), values.last()) else {
        return (0.0, 0.0, 0.0);
    };
    let upper = values.len() / 2;
    let lower = (values.len() - 1) / 2;
    ((values[lower] + values[upper]) / 2.0, *least, *most)
}

impl Line {
    pub(super) fn unit(&self) -> &'static str {
        self.figures.first().map_or("", |figure| figure.unit)
    }

    /// Median, least and most of the rounds.
    pub(super) fn values(&self) -> (f64, f64, f64) {
        middle(self.figures.iter().map(|figure| figure.value).collect())
    }

    /// Messages of all rounds.
    pub(super) fn count(&self) -> u64 {
        self.figures.iter().map(|figure| figure.count).sum()
    }

    /// The median of the rounds' percentiles, in microseconds; `None`: it has no latencies.
    pub(super) fn percentile(&self, percentile: f64) -> Option<f64> {
        let of = |figure: &Figure| {
            let latencies = figure.latencies.as_ref()?;
            Some(latencies.value_at_percentile(percentile) as f64 / 1e3)
        };
        let values: Option<Vec<f64>> = self.figures.iter().map(of).collect();
        values
            .filter(|values| !values.is_empty())
            .map(|values| middle(values).0)
    }

    /// The greatest latency of all rounds, in microseconds.
    pub(super) fn latency_max(&self) -> Option<f64> {
        self.percentile(100.0)?;
        let of = |figure: &Figure| Some(figure.latencies.as_ref()?.max() as f64 / 1e3);
        self.figures.iter().filter_map(of).max_by(f64::total_cmp)
    }

    /// The sums of the rounds' notes.
    pub(super) fn notes(&self) -> Vec<(&'static str, f64)> {
        let mut sums: Vec<(&'static str, f64)> = Vec::new();
        for &(name, value) in self.figures.iter().flat_map(|figure| &figure.notes) {
            match sums.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum += value,
                None => sums.push((name, value)),
            }
        }
        sums
    }
}

/// Three digits that mean something.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The table for people.
pub(super) fn table(out: &mut dyn Write, lines: &[Line]) -> io::Result<()> {
    let longest = lines.iter().map(|line| line.name.chars().count()).max();
    let width = longest.unwrap_or(0);
    writeln!(
        out,
        "{:<width$} {:>9} {:>19}  unit",
        "case", "median", "least–most"
    )?;
    for line in lines {
        let (median, least, most) = line.values();
        let range = format!("{}–{}", short(least), short(most));
        let mut text = format!(
            "{:<width$} {:>9} {range:>19}  {}",
            line.name,
            short(median),
            line.unit()
        );
        for (name, percentile) in PERCENTILES.into_iter().skip(1) {
            if let Some(value) = line.percentile(percentile) {
                let _ = write!(text, " {name} {}", short(value));
            }
        }
        if let Some(value) = line.latency_max() {
            let _ = write!(text, " max {}", short(value));
        }
        for (name, value) in line.notes() {
            let _ = write!(text, "; {name} {value:.0}");
        }
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

/// The same for programs: one object, whose facts come first.
pub(super) fn json(
    out: &mut dyn Write,
    facts: &[(&str, String)],
    lines: &[Line],
) -> io::Result<()> {
    writeln!(out, "{{")?;
    for (name, value) in facts {
        writeln!(out, "  {}: {},", quoted(name), quoted(value))?;
    }
    writeln!(out, "  \"rows\": [")?;
    for (index, line) in lines.iter().enumerate() {
        let (median, least, most) = line.values();
        let rounds: Vec<String> = line
            .figures
            .iter()
            .map(|figure| format!("{:.6}", figure.value))
            .collect();
        let mut text = format!(
            "    {{\"case\": {}, \"unit\": {}, \"median\": {median:.6}, \"least\": {least:.6}, \
             \"most\": {most:.6}, \"count\": {}, \"rounds\": [{}]",
            quoted(&line.name),
            quoted(line.unit()),
            line.count(),
            rounds.join(", ")
        );
        for (name, percentile) in PERCENTILES {
            if let Some(value) = line.percentile(percentile) {
                let _ = write!(text, ", {}: {value:.3}", quoted(name));
            }
        }
        if let Some(value) = line.latency_max() {
            let _ = write!(text, ", \"max\": {value:.3}");
        }
        for (name, value) in line.notes() {
            let _ = write!(text, ", {}: {value:.0}", quoted(name));
        }
        let comma = if index + 1 < lines.len() { "," } else { "" };
        writeln!(out, "{text}}}{comma}")?;
    }
    writeln!(out, "  ]\n}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_rounds_lies_between_their_bounds() {
        assert_eq!(middle(vec![]), (0.0, 0.0, 0.0));
        assert_eq!(middle(vec![4.0]), (4.0, 4.0, 4.0));
        assert_eq!(middle(vec![9.0, 1.0]), (5.0, 1.0, 9.0));
        assert_eq!(middle(vec![9.0, 1.0, 2.0]), (2.0, 1.0, 9.0));
    }

    #[test]
    fn a_line_sums_up_its_rounds() {
        let round = |ns: u64, lost: f64| {
            let mut latencies = latencies();
            latencies.saturating_record(ns);
            Figure {
                notes: vec![("lost", lost)],
                ..Figure::latency(latencies)
            }
        };
        let line = Line {
            name: "a \"line\"".to_owned(),
            figures: vec![round(2000, 1.0), round(4000, 2.0), round(3000, 0.0)],
        };
        assert_eq!(line.count(), 3);
        assert_eq!(line.notes(), [("lost", 3.0)]);
        let about = |value: f64, expected: f64| (value - expected).abs() < 0.01;
        assert!(about(line.values().0, 3.0));
        assert!(about(line.percentile(99.0).unwrap(), 3.0));
        assert!(about(line.latency_max().unwrap(), 4.0));
        let mut text = Vec::new();
        json(&mut text, &[("fact", "a\n".to_owned())], &[line]).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(report["fact"], "a\n");
        assert_eq!(report["rows"][0]["case"], "a \"line\"");
        assert_eq!(report["rows"][0]["lost"], 3);
    }
}
