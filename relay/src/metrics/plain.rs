//! The page of numbers in the older text format, for scrapers that do not know `OpenMetrics`.
//!
//! The two differ in three things: here a counter is named with its `_total` in HELP and TYPE as well, there is no last
//! line, and a unit has no line of its own.

/// What [`plain`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of `OpenMetrics` in the text format 0.0.4.
pub fn plain(page: &str) -> String {
    let mut out = String::with_capacity(page.len() + 512);
    let mut help = None;
    for line in page.lines() {
        if line.starts_with("# HELP ") {
            // Whether it tells of a counter stands in the line that follows.
            help = Some(line);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|declared| declared.split_once(' '))
        {
            let total = if kind == "counter" { "_total" } else { "" };
            if let Some((before, text)) = help.take().and_then(|help| help.split_at_checked(7 + name.len())) {
                out.extend([before, total, text, "\n"]);
            }
            out.extend(["# TYPE ", name, total, " ", kind, "\n"]);
        } else if !line.starts_with("# ") {
            out.extend([line, "\n"]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_declared_with_its_whole_name_and_nothing_else_changes() {
        let page = "# HELP a_pushes Pushes, by result.\n# TYPE a_pushes counter\na_pushes_total{result=\"x\"} 1\n\
                    # HELP a_rows Rows.\n# TYPE a_rows gauge\n# UNIT a_rows rows\na_rows 5\n# EOF\n";
        let wanted = "# HELP a_pushes_total Pushes, by result.\n# TYPE a_pushes_total counter\n\
                      a_pushes_total{result=\"x\"} 1\n# HELP a_rows Rows.\n# TYPE a_rows gauge\na_rows 5\n";
        assert_eq!(plain(page), wanted);
    }
}
