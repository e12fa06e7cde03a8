//! How a download is shown: a bar on a terminal, a few plain lines in a log.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// Plain lines are said at each of so many equal parts.
const PLAIN_PARTS: u64 = 4;
/// Bytes in the MB that plain lines count in.
const MEGABYTE: u64 = 1_000_000;

pub(super) enum Progress {
    Bar(ProgressBar),
    Plain { name: String, bytes: u64, parts_said: u64 },
}

impl Progress {
    pub(super) fn start(name: &str, bytes: u64, have: u64) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("{name}: {} of {} MB are here", have / MEGABYTE, bytes / MEGABYTE);
            return Self::Plain { name: name.to_owned(), bytes, parts_said: have * PLAIN_PARTS / bytes.max(1) };
        }
        let style = "{prefix:32!} {bar:30} {bytes:>10}/{total_bytes} {bytes_per_sec:>12} {eta:>4}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(bytes).with_style(style).with_prefix(name.to_owned()).with_position(have);
        bar.reset_eta();
        Self::Bar(bar)
    }

    pub(super) fn at(&mut self, have: u64) {
        match self {
            Self::Bar(bar) => bar.set_position(have),
            Self::Plain { name, bytes, parts_said } => {
                let parts = have * PLAIN_PARTS / (*bytes).max(1);
                if parts > *parts_said {
                    *parts_said = parts;
                    eprintln!("{name}: {} of {} MB", have / MEGABYTE, *bytes / MEGABYTE);
                }
            }
        }
    }

    pub(super) fn finish(self) {
        if let Self::Bar(bar) = self {
            bar.finish();
        }
    }
}
