//! Lines over counts, both axes logarithmic, as SVG.

use std::fmt::Write;

/// Seconds over a count of something.
pub(crate) struct Line {
    pub(crate) what: &'static str,
    pub(crate) over: &'static str,
    pub(crate) seconds: Vec<(u64, f64)>,
}

const WIDTH: f64 = 980.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 410.0;
const TOP: f64 = 20.0;
const BOTTOM: f64 = 40.0;
/// Powers of ten that the axes reach.
const COUNTS: (f64, f64) = (0.0, 7.0);
const SECONDS: (f64, f64) = (-4.0, 3.0);
const COLOURS: [&str; 7] = ["#b8860b", "#1f77b4", "#2ca02c", "#d62728", "#9467bd", "#17becf", "#7f7f7f"];

fn x(count: f64) -> f64 {
    LEFT + (count.max(1.0).log10() - COUNTS.0) / (COUNTS.1 - COUNTS.0) * (WIDTH - LEFT - RIGHT)
}

fn y(seconds: f64) -> f64 {
    let power = seconds.max(1e-4).log10().clamp(SECONDS.0, SECONDS.1);
    TOP + (SECONDS.1 - power) / (SECONDS.1 - SECONDS.0) * (HEIGHT - TOP - BOTTOM)
}

/// The picture.
pub(crate) fn drawn(lines: &[Line]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut put = |text: String| svg.push_str(&text);
    for power in -4..=3 {
        let at = y(10f64.powi(power));
        put(format!("<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>", WIDTH - RIGHT));
        put(format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{} s</text>\n",
            LEFT - 6.0,
            at + 4.0,
            10f64.powi(power)
        ));
    }
    for power in 0..=7 {
        let at = x(10f64.powi(power));
        put(format!("<line y1=\"{TOP}\" y2=\"{}\" x1=\"{at:.1}\" x2=\"{at:.1}\" stroke=\"#eee\"/>", HEIGHT - BOTTOM));
        put(format!("<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">10^{power}</text>\n", HEIGHT - BOTTOM + 16.0));
    }
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let dash = ["", "6 3", "2 2"][index / COLOURS.len() % 3];
        let mut path = String::new();
        for (count, seconds) in &line.seconds {
            write!(path, "{:.1},{:.1} ", x(*count as f64), y(*seconds)).expect("write to a string");
        }
        put(format!(
            "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>"
        ));
        let at = TOP + 14.0 + index as f64 * 18.0;
        let from = WIDTH - RIGHT + 14.0;
        put(format!(
            "<line x1=\"{from}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
            from + 24.0
        ));
        put(format!("<text x=\"{}\" y=\"{}\">{}, over {}</text>\n", from + 30.0, at + 4.0, line.what, line.over));
    }
    svg.push_str("</svg>\n");
    svg
}
