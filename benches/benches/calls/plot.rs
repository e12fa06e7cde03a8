//! Latency against calls, as a picture.

use std::fmt::Write;

use crate::run::Step;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 56.0;
const COLOURS: [&str; 3] = ["#1b6ca8", "#c0392b", "#2e8b57"];

/// p50 (dashed) and p95 (solid) of responses, a colour for each row.
pub fn svg(curves: &[(&str, Vec<Step>)], machine: &str) -> String {
    let steps = || curves.iter().flat_map(|(_, steps)| steps);
    let calls_max = steps().map(|step| step.calls).max().unwrap_or(1) as f64;
    let ms_max = steps().map(|step| step.response.1).max().unwrap_or(1).next_multiple_of(200) as f64;
    let x = |calls: f64| MARGIN + calls / calls_max * (WIDTH - 2.0 * MARGIN);
    let y = |ms: f64| HEIGHT - MARGIN - ms / ms_max * (HEIGHT - 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{MARGIN}\" y=\"20\">response, ms (p95 solid, p50 dashed), against calls on one core</text>\n\
         <text x=\"{MARGIN}\" y=\"36\" fill=\"#777\">{}</text>\n",
        machine.replace('&', "&amp;").replace('<', "&lt;")
    );
    for part in 0..=4 {
        let (ms, calls) = (ms_max * f64::from(part) / 4.0, calls_max * f64::from(part) / 4.0);
        let (right, bottom) = (WIDTH - MARGIN, HEIGHT - MARGIN);
        let _ = writeln!(
            out,
            "<path d=\"M{MARGIN} {0:.0}H{right}\" stroke=\"#ddd\"/><text x=\"{1}\" y=\"{0:.0}\" text-anchor=\"end\">{ms:.0}</text>\
             <text x=\"{2:.0}\" y=\"{3}\" text-anchor=\"middle\">{calls:.0}</text>",
            y(ms),
            MARGIN - 6.0,
            x(calls),
            bottom + 18.0
        );
    }
    for ((name, steps), colour) in curves.iter().zip(COLOURS) {
        for (dash, ms) in [("", (|step: &Step| step.response.1) as fn(&Step) -> u64), (" stroke-dasharray=\"5 4\"", |step| step.response.0)] {
            let points: Vec<_> = steps.iter().map(|step| format!("{:.1},{:.1}", x(step.calls as f64), y(ms(step) as f64))).collect();
            let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>", points.join(" "));
        }
        if let Some(last) = steps.last() {
            let _ =
                writeln!(out, "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>", x(last.calls as f64) - 30.0, y(last.response.1 as f64) - 6.0);
        }
    }
    out.push_str("</svg>\n");
    out
}
