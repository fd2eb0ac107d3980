//! The results: a table, a plot, and whether the targets are met.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use plotters::prelude::*;

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

    /// Writes docs/performance.svg: the ratios to the reference program, with minimum and maximum.
    pub(crate) fn draw(&self) {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/performance.svg");
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.name.contains("bare")).collect();
        let most = rows.iter().flat_map(|row| &row.values).fold(1.0_f64, |most, value| most.max(*value)) * 1.05;
        let count = i32::try_from(rows.len()).unwrap();
        let area = SVGBackend::new(path, (900, u32::try_from(90 + 26 * count).unwrap())).into_drawing_area();
        area.fill(&WHITE).unwrap();
        let mut chart = ChartBuilder::on(&area)
            .caption("Ratios to a bare signer: median, least, most", ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(430)
            .build_cartesian_2d(0.0..most, 0..count)
            .unwrap();
        let name = |at: &i32| {
            usize::try_from(*at).ok().and_then(|at| rows.get(at)).map_or(String::new(), |row| row.name.clone())
        };
        chart.configure_mesh().disable_y_mesh().y_labels(rows.len()).y_label_formatter(&name).draw().unwrap();
        let line = PathElement::new([(1.0, 0), (1.0, count)], BLACK);
        chart.draw_series([line]).unwrap();
        for (at, row) in (0..count).zip(&rows) {
            let colour = if row.target.is_met(row.median()) { &BLUE } else { &RED };
            chart
                .draw_series([PathElement::new(
                    [(row.values[0], at), (row.values[row.values.len() - 1], at)],
                    colour.stroke_width(2),
                )])
                .unwrap();
            chart.draw_series([Circle::new((row.median(), at), 4, colour.filled())]).unwrap();
        }
        area.present().unwrap();
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
