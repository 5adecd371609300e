//! What a process takes of the machine, as its kernel tells.

use std::fs;

/// What it has in memory, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its own");
    let kib = line.trim().trim_end_matches(" kB").trim();
    1024.0 * kib.parse::<f64>().expect("a number")
}

/// Processor time of all its threads so far, in microseconds.
pub(crate) fn cpu_us(pid: u32) -> f64 {
    /// Fields behind the name of the program: user time is the 12th, system time the 13th.
    const USER: usize = 11;
    /// The unit in which the kernel tells programs of these times is a hundredth of a second.
    const TICK_US: f64 = 10_000.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let behind_name = stat.rsplit_once(") ").expect("a name in brackets").1;
    let ticks = behind_name.split(' ').skip(USER).take(2).map(|it| it.parse::<f64>().expect("a number"));
    TICK_US * ticks.sum::<f64>()
}
