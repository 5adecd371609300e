//! The simulated fleet as a tool: figures of the lease table beside those of the published failure detectors.
//!
//! `cargo run --release -p dormouse-tests --bin fleet -- --nodes 10000 --seed 7`
//!
//! Prints lines `name value unit` and a Markdown table for each workload. `--workload schedules` runs random schedules
//! against an oracle instead; a failure prints its seed, and the exit code is 1.

use std::{error::Error, io::Write, process::ExitCode};

use dormouse_tests::fleet::{
    figures::{Printer, Scale},
    schedules::{Search, search},
    workload::Workload,
};

/// A third of the time would be spent in the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: fleet [--nodes N] [--seed S] [--workload W] [--schedules N] [--threads T]
  --nodes N      how many nodes are alive, 10000 if it is not given
  --seed S       all chance follows from it, 7 if it is not given
  --workload W   w, w-harsh, w-mix, sleep, awake-death, schedules, or all of them but schedules
  --schedules N  how many random schedules, 10000000 if it is not given
  --threads T    for schedules; 2 if it is not given";

struct Wanted {
    scale: Scale,
    workload: String,
    schedules: u64,
    threads: usize,
}

fn wanted(args: impl Iterator<Item = String>) -> Result<Wanted, Box<dyn Error>> {
    let scale = Scale { nodes: 10_000, seed: 7 };
    let mut wanted = Wanted { scale, workload: "all".to_owned(), schedules: 10_000_000, threads: 2 };
    let mut args = args;
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--nodes" => wanted.scale.nodes = value.parse()?,
            "--seed" => wanted.scale.seed = value.parse()?,
            "--workload" => wanted.workload = value,
            "--schedules" => wanted.schedules = value.parse()?,
            "--threads" => wanted.threads = value.parse()?,
            _ => return Err(format!("{name} is not understood").into()),
        }
    }
    let sensible = (100..=1_000_000).contains(&wanted.scale.nodes) && wanted.threads > 0;
    if sensible { Ok(wanted) } else { Err("between 100 and 1000000 nodes, and at least one thread".into()) }
}

fn run(wanted: &Wanted) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    let nodes = wanted.scale.nodes;
    if wanted.workload == "schedules" {
        return schedules(wanted, &mut out);
    }
    let names = ["w", "w-harsh", "w-mix", "sleep", "awake-death"];
    let all = wanted.workload == "all";
    if !all && !names.contains(&wanted.workload.as_str()) {
        return Err(format!("there is no workload {}\n{USAGE}", wanted.workload).into());
    }
    let mut printer = Printer::new(&mut out, wanted.scale);
    for name in names.into_iter().filter(|name| all || *name == wanted.workload) {
        match name {
            "w" => printer.one_group(&Workload::w(nodes))?,
            "w-harsh" => printer.one_group(&Workload::harsh(nodes))?,
            "w-mix" => printer.mix()?,
            "sleep" => printer.sleep()?,
            _ => printer.awake_death()?,
        }
    }
    Ok(())
}

fn schedules(wanted: &Wanted, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let seed = wanted.scale.seed;
    let Search { stats, findings } = search(seed, wanted.schedules, wanted.threads);
    writeln!(out, "lease_schedules {} count seed={seed}", stats.schedules)?;
    writeln!(out, "lease_schedules_wrong {} count seed={seed}", findings.len())?;
    writeln!(out, "lease_schedule_steps {} count seed={seed}", stats.steps)?;
    writeln!(out, "lease_schedule_ends_proposed {} count seed={seed}", stats.proposed)?;
    writeln!(out, "lease_schedule_restarts {} count seed={seed}", stats.restarts)?;
    match findings.first() {
        None => Ok(()),
        Some(first) => Err(format!("seed {}: {}", first.seed, first.complaint).into()),
    }
}

fn main() -> ExitCode {
    let wanted = match wanted(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(why) => {
            eprintln!("{why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&wanted) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}
