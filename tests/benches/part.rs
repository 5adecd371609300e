//! The parts of a bench, by the beginnings of their names on the command line.

/// Runs a part if the command line names it or names none.
pub(crate) async fn part(name: &str, run: impl Future<Output = ()>) {
    let mut wanted = std::env::args().skip(1).filter(|it| !it.starts_with('-')).peekable();
    if wanted.peek().is_some() && !wanted.any(|it| name.starts_with(&it)) {
        return;
    }
    let average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load_average {} processes", average.split(' ').next().unwrap_or("?"));
    run.await;
}
