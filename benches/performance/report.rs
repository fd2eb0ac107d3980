//! The results: a table, and whether the targets are met.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

/// The limit for a median.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    None,
}

impl Target {
    fn is_met(self, median: f64) -> bool {
        match self {
            Self::AtMost(most) => median <= most,
            Self::AtLeast(least) => median >= least,
            Self::None => true,
        }
    }
}

struct Row {
    name: String,
    /// Sorted.
    values: Vec<f64>,
    target: Target,
}

/// All measurements.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a measurement, with its value in each round.
    pub(crate) fn add(&mut self, name: &str, mut values: Vec<f64>, target: Target) {
        let median = percentile(&mut values, 50.0);
        eprintln!("  {name}: {median:.3}");
        self.rows.push(Row { name: name.to_owned(), values, target });
    }

    pub(crate) fn is_met(&self) -> bool {
        self.rows.iter().all(|row| row.target.is_met(row.median()))
    }

    /// A table for docs/performance.md.
    #[allow(clippy::print_stdout)]
    pub(crate) fn print(&self) {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN).set_header(["what", "median", "least", "most", "target", ""]);
        for row in &self.rows {
            let target = match row.target {
                Target::AtMost(most) => format!("<= {most}"),
                Target::AtLeast(least) => format!(">= {least}"),
                Target::None => String::new(),
            };
            let verdict = if row.target.is_met(row.median()) { "" } else { "missed" };
            let [median, least, most] = [row.median(), row.values[0], row.values[row.values.len() - 1]].map(shown);
            table.add_row([row.name.clone(), median, least, most, target, verdict.to_owned()]);
        }
        for column in 1..=3 {
            table.column_mut(column).unwrap().set_cell_alignment(CellAlignment::Right);
        }
        println!("{table}");
    }
}

impl Row {
    fn median(&self) -> f64 {
        self.values[(self.values.len() - 1) / 2]
    }
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// Sorts the values, and returns the given percentile.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * percent / 100.0) as usize]
}

/// For each round, the ratio of two columns.
pub(crate) fn ratios(rounds: &[Vec<f64>], column: usize, of: usize) -> Vec<f64> {
    rounds.iter().map(|round| round[column] / round[of]).collect()
}
