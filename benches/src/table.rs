//! The report: one Markdown table for each thing measured.

use crate::rounds::Contender;
use crate::say;

/// Prints the contenders, the first of whom the ratios refer to.
pub(crate) fn print(title: &str, bytes: u64, contenders: &[Contender<'_>]) {
    say(format_args!("## {title}\n"));
    say("| | median | fastest–slowest | MiB/s | first ÷ this | peak RSS |");
    say("| --- | ---: | ---: | ---: | ---: | ---: |");
    let Some(first) = contenders.first() else { return };
    for one in contenders {
        let rate = bytes as f64 / f64::from(1 << 20) / one.median();
        let peak = one.peak().map_or_else(|| "not measured".to_owned(), |kib| format!("{} MiB", kib.div_ceil(1024)));
        say(format_args!(
            "| {} | {:.2} s | {:.2}–{:.2} s | {rate:.0} | {:.2} | {peak} |",
            one.name,
            one.median(),
            one.fastest(),
            one.slowest(),
            first.ratio(one),
        ));
    }
    say("");
}

/// Like [`print()`], where only the time counts.
pub(crate) fn print_times(title: &str, contenders: &[Contender<'_>]) {
    say(format_args!("## {title}\n"));
    say("| | median | fastest–slowest | first ÷ this |");
    say("| --- | ---: | ---: | ---: |");
    let Some(first) = contenders.first() else { return };
    for one in contenders {
        let [median, fastest, slowest] = [one.median(), one.fastest(), one.slowest()].map(|seconds| seconds * 1e3);
        say(format_args!("| {} | {median:.2} ms | {fastest:.2}–{slowest:.2} ms | {:.2} |", one.name, first.ratio(one)));
    }
    say("");
}
