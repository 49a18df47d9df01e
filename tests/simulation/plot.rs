//! Two drawings in SVG: shares of the rate as bars, and how they change in long runs as lines.

use std::fmt::Write;

use crate::long::{Long, Parts};
use crate::network::Server;
use crate::upstream::Model;

/// A bar of the first drawing.
pub(crate) struct Bar {
    pub(crate) label: String,
    /// In percent.
    pub(crate) share: f64,
}

const WIDTH: f64 = 760.0;
/// The least share that is drawn, in percent.
const SHARE_MIN: f64 = 70.0;

fn open(height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    )
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let at = format!("x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"");
    writeln!(svg, "<text {at} fill=\"#222\">{words}</text>").expect("memory is enough");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ends =
        format!("x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\"", from.0, from.1, to.0, to.1);
    writeln!(svg, "<line {ends} stroke=\"#ccc\"/>").expect("memory is enough");
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).expect("few"))
}

/// One bar for each network, upstream and use of acknowledgements.
pub(crate) fn bars(bars: &[Bar]) -> String {
    const LEFT: f64 = 300.0;
    const STEP: f64 = 18.0;
    let x = |share: f64| LEFT + (share - SHARE_MIN) / (100.0 - SHARE_MIN) * (WIDTH - LEFT - 60.0);
    let bottom = 40.0 + STEP * number(bars.len());
    let mut svg = open(bottom + 30.0);
    text(&mut svg, 10.0, 20.0, "start", "Share of 4 calls a second, sliding log, in percent");
    for share in [70.0, 80.0, 90.0, 100.0] {
        line(&mut svg, (x(share), 32.0), (x(share), bottom));
        text(&mut svg, x(share), bottom + 16.0, "middle", &format!("{share:.0}"));
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = 36.0 + STEP * number(index);
        let (width, fill) = (x(bar.share) - LEFT, "#4a7fb5");
        writeln!(
            svg,
            "<rect x=\"{LEFT:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"13\" \
             fill=\"{fill}\"/>"
        )
        .expect("memory is enough");
        text(&mut svg, LEFT - 8.0, y + 11.0, "end", &bar.label);
        text(&mut svg, x(bar.share) + 6.0, y + 11.0, "start", &format!("{:.1}", bar.share));
    }
    svg + "</svg>\n"
}

/// The share over the calls of long runs; a dot where calls were refused.
pub(crate) fn narrowing(series: &[(&Long, &Parts)]) -> String {
    const LEFT: f64 = 50.0;
    const RIGHT: f64 = 220.0;
    const BOTTOM: f64 = 330.0;
    let y = |share: f64| BOTTOM - (share - SHARE_MIN) / (100.0 - SHARE_MIN) * (BOTTOM - 40.0);
    let parts = series.iter().map(|(_, parts)| parts.0.len()).max().unwrap_or(1);
    let x = |part: f64| LEFT + part / number(parts) * (WIDTH - LEFT - RIGHT);
    let mut svg = open(BOTTOM + 50.0);
    let title = "Share in percent over 100,000s of calls, wan, no acknowledgements; dot: refused";
    text(&mut svg, 10.0, 20.0, "start", title);
    for share in [70.0, 80.0, 90.0, 100.0] {
        line(&mut svg, (LEFT, y(share)), (WIDTH - RIGHT, y(share)));
        text(&mut svg, LEFT - 8.0, y(share) + 4.0, "end", &format!("{share:.0}"));
    }
    for part in (0..=parts).step_by(5) {
        text(&mut svg, x(number(part)), BOTTOM + 18.0, "middle", &part.to_string());
    }
    for (index, (long, parts)) in series.iter().enumerate() {
        let color = match long.model {
            Model::TokenBucket => "#2a8f4e",
            Model::FixedSecond => "#c77d1e",
            Model::SlidingLog | Model::SlidingLogOfAll | Model::Spacer | Model::WeightedCounter => {
                "#b03a3a"
            }
        };
        let dash = if long.server == Server::Slow { "6 4" } else { "none" };
        let mut points = String::new();
        let mut dots = String::new();
        for (at, part) in parts.0.iter().enumerate() {
            let (x, y) = (x(number(at) + 0.5), y(part.share));
            write!(points, "{x:.1},{y:.1} ").expect("memory is enough");
            if part.refused > 0 {
                writeln!(dots, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>")
                    .expect("memory is enough");
            }
        }
        let style = format!("fill=\"none\" stroke=\"{color}\" stroke-dasharray=\"{dash}\"");
        let points = points.trim_end();
        let key = 50.0 + 20.0 * number(index);
        let from = WIDTH - RIGHT + 12.0;
        writeln!(
            svg,
            "<polyline points=\"{points}\" {style}/>\n\
             <polyline points=\"{from:.1},{key:.1} {:.1},{key:.1}\" {style}/>\n{}",
            from + 28.0,
            dots.trim_end()
        )
        .expect("memory is enough");
        let words = format!("{}, {}", long.model.name(), long.server.name());
        text(&mut svg, from + 34.0, key + 4.0, "start", &words);
    }
    svg + "</svg>\n"
}
