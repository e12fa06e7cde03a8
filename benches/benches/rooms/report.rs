//! The results as tables: a column for each field, nested ones by both names, and first those that say whose row it is.

use serde_json::Value;

/// Fields that name a row.
const NAMES: [&str; 4] = ["who", "rooms", "participants", "loss_percent"];

/// Prints a part's rows.
pub fn print(part: &str, result: &Value) {
    let rows: Vec<Vec<(String, String)>> = match result {
        Value::Array(rows) => rows.iter().map(cells).collect(),
        row => vec![cells(row)],
    };
    let Some(first) = rows.first() else { return };
    let widths: Vec<usize> =
        (0..first.len()).map(|at| rows.iter().filter_map(|row| row.get(at)).flat_map(|(name, value)| [name.len(), value.len()]).max().unwrap_or(0)).collect();
    let line = |cells: Vec<&str>| cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect::<Vec<_>>().join("  ");
    println!("\n{part}\n{}", line(first.iter().map(|(name, _)| name.as_str()).collect()));
    for row in &rows {
        println!("{}", line(row.iter().map(|(_, value)| value.as_str()).collect()));
    }
}

fn cells(row: &Value) -> Vec<(String, String)> {
    let mut fields: Vec<_> = row.as_object().into_iter().flatten().collect();
    fields.sort_by_key(|(name, _)| NAMES.iter().position(|known| known == name).unwrap_or(NAMES.len()));
    fields
        .into_iter()
        .flat_map(|(name, value)| match value {
            Value::Object(inner) => inner.iter().map(|(under, value)| (format!("{name} {under}"), text(value))).collect(),
            value => vec![(name.clone(), text(value))],
        })
        .collect()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
