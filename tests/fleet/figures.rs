//! Runs the workloads and prints what came of them: lines `name value unit`, and one Markdown table for each workload.

use std::{error::Error, io::Write};

use dormouse_relay::liveness::{LeaseSettings, Millis};

use super::{
    best_ttl::{Equal, FleetGaps},
    detector::{Detector, Dormouse, FixedTtl, Phi, ScaledTtl, Swim},
    trial::{self, Outcome, Window, mean},
    tuning::as_patient,
    workload::{LongInvocations, Workload},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A lease as it is often chosen for something that beats each few seconds.
pub const SHORT_TTL_MS: u64 = 30_000;
/// How many freezes the declared sleep has.
pub const SLEEP_CYCLES: u32 = 100_000;
/// When nodes die awake, in milliseconds: after so long that every detector has its samples.
const DEATHS_MS: std::ops::Range<u64> = 60_000..120_000;

/// How large, and which of its many fleets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Living nodes.
    pub nodes: u32,
    /// All chance follows from it.
    pub seed: u64,
}

/// The leases that the fleets get: the defaults.
fn usual_leases() -> LeaseSettings {
    LeaseSettings::default()
}

/// The leases of a group that is known to sleep for up to a quarter of an hour: nothing is learned.
pub fn patient_leases() -> LeaseSettings {
    let asleep = Millis::from_secs(1_800);
    LeaseSettings { asleep, asleep_min: asleep, asleep_max: asleep, ..LeaseSettings::default() }
}

/// A detector and its name in the tables.
pub struct Contender {
    /// As it stands in the tables.
    pub title: String,
    /// As it ends the names of its figures.
    pub suffix: &'static str,
    detector: Box<dyn Detector>,
}

impl Contender {
    fn new(title: impl Into<String>, suffix: &'static str, detector: impl Detector + 'static) -> Self {
        Self { title: title.into(), suffix, detector: Box::new(detector) }
    }

    /// A lease of one fixed length.
    pub fn fixed(suffix: &'static str, ttl_ms: u64) -> Self {
        let title = format!("one lease of {:.0} s for all", ttl_ms as f64 / 1e3);
        Self::new(title, suffix, FixedTtl::new(ttl_ms))
    }

    /// The detectors that have defaults of their own.
    pub fn published(seed: u64) -> Vec<Self> {
        vec![
            Self::fixed("ttl_30s", SHORT_TTL_MS),
            Self::new("phi accrual (chitchat's formula)", "phi", Phi::new(8.0)),
            Self::new("SWIM with suspicion (model)", "swim", Swim::new(seed)),
            Self::new("lease scaled by load (Nomad's formula)", "nomad", ScaledTtl::new(seed)),
        ]
    }
}

/// Nobody dies, and so many freezes are declared. What happens in the first minutes of the fleet does not count.
pub fn declared_sleep(
    scale: Scale,
    cycles: u32,
    warm_up_minutes: u32,
    detector: &mut dyn Detector,
) -> Outcome {
    let counted = cycles.div_ceil(scale.nodes.max(1));
    // A freeze takes more than two minutes on average.
    let workload = Workload::sleep(scale.nodes, counted + warm_up_minutes / 2);
    let window = Window { from_ms: u64::from(warm_up_minutes) * 60_000, to_ms: u64::MAX };
    trial::run(workload.fleet(scale.seed), detector, window)
}

/// Nodes die inside long invocations. The trial goes on for so long after the last death.
pub fn awake_death(scale: Scale, detector: &mut dyn Detector, patience_ms: u64) -> Outcome {
    let fleet = LongInvocations::new(scale.nodes, DEATHS_MS, scale.seed);
    trial::run(fleet, detector, Window { from_ms: 0, to_ms: DEATHS_MS.end + patience_ms })
}

/// That share of the values is at most so large, in seconds; `None` if there are none.
pub fn quantile_s(values_ms: &[u64], share: f64) -> Option<f64> {
    let mut sorted = values_ms.to_vec();
    sorted.sort_unstable();
    let below = sorted.len().saturating_sub(1) as f64 * share;
    let index = sorted.iter().enumerate().map(|(index, _)| index).find(|index| *index as f64 >= below)?;
    sorted.get(index).map(|ms| *ms as f64 / 1e3)
}

/// How large a fleet is, as it stands in the name of a figure.
fn short_number(nodes: u32) -> String {
    if nodes.is_multiple_of(1_000) { format!("{}k", nodes / 1_000) } else { nodes.to_string() }
}

/// Prints figures, and remembers how large the fleet was.
pub struct Printer<'a, W> {
    out: &'a mut W,
    scale: Scale,
}

impl<'a, W: Write> Printer<'a, W> {
    /// Prints there.
    pub fn new(out: &'a mut W, scale: Scale) -> Self {
        Self { out, scale }
    }

    fn line(&mut self, name: &str, value: impl std::fmt::Display, unit: &str) -> Result<()> {
        let Scale { nodes, seed } = self.scale;
        writeln!(self.out, "{name} {value} {unit} nodes={nodes} seed={seed}")?;
        Ok(self.out.flush()?)
    }

    fn table(&mut self, title: &str, head: &[&str], rows: &[Vec<String>]) -> Result<()> {
        let Scale { nodes, seed } = self.scale;
        writeln!(self.out, "\n{title}, {nodes} nodes, seed {seed}:\n")?;
        writeln!(self.out, "| {} |\n|{}", head.join(" | "), "---|".repeat(head.len()))?;
        for row in rows {
            writeln!(self.out, "| {} |", row.join(" | "))?;
        }
        Ok(writeln!(self.out)?)
    }

    /// `sleep`: declared freezes of 1 s to 15 min.
    pub fn sleep(&mut self) -> Result<()> {
        let mut rows = Vec::new();
        for (title, suffix, leases, warm_up) in [
            ("Dormouse, learned leases, from its first minute on", "", usual_leases(), 0),
            ("Dormouse, learned leases, after an hour", "_warm", usual_leases(), 60),
            ("Dormouse, 30 min set for the group", "_set_lease", patient_leases(), 0),
        ] {
            let mut dormouse = Dormouse::new(leases, 1)?;
            let outcome = declared_sleep(self.scale, SLEEP_CYCLES, warm_up, &mut dormouse);
            expect_none(dormouse.unexpected())?;
            let name = format!("declared_sleep_false_deaths{suffix}");
            self.line(&name, outcome.total().false_deaths, "count")?;
            self.line(&format!("declared_sleep_cycles{suffix}"), outcome.total().freezes, "count")?;
            rows.push(sleep_row(title, &outcome));
        }
        for Contender { title, suffix, mut detector } in Contender::published(self.scale.seed) {
            let outcome = declared_sleep(self.scale, SLEEP_CYCLES, 0, detector.as_mut());
            let name = format!("declared_sleep_false_deaths_{suffix}");
            self.line(&name, outcome.total().false_deaths, "count")?;
            rows.push(sleep_row(&title, &outcome));
        }
        self.table("Freezes of 1 s to 15 min, nobody dies", &["detector", "freezes", "false deaths"], &rows)
    }

    /// `awake-death`: a tenth of the nodes, as many as asked for, and ten times as many.
    pub fn awake_death(&mut self) -> Result<()> {
        let asked = self.scale;
        let mut rows = Vec::new();
        for nodes in [asked.nodes / 10, asked.nodes, asked.nodes * 10] {
            self.scale = Scale { nodes, ..asked };
            let mut dormouse = Dormouse::new(usual_leases(), 1)?;
            let outcome = awake_death(self.scale, &mut dormouse, 20_000);
            expect_none(dormouse.unexpected())?;
            self.delays(&outcome, &format!("s_{}", short_number(nodes)))?;
            rows.push(delay_row("Dormouse", self.scale, &outcome));
        }
        self.scale = asked;
        // Nomad's leases are the longest, and grow with the fleet.
        let patience_ms = 30_000 + 2 * u64::from(asked.nodes) * 1_000 / 50;
        for Contender { title, suffix, mut detector } in Contender::published(asked.seed) {
            let outcome = awake_death(asked, detector.as_mut(), patience_ms);
            self.delays(&outcome, &format!("s_{suffix}"))?;
            rows.push(delay_row(&title, asked, &outcome));
        }
        let head = [
            "detector",
            "nodes",
            "deaths",
            "SUSPECT p50",
            "SUSPECT p99",
            "GONE p50",
            "GONE p99",
            "false deaths",
        ];
        self.table("Silent deaths inside long invocations, virtual seconds", &head, &rows)
    }

    fn delays(&mut self, outcome: &Outcome, suffix: &str) -> Result<()> {
        for (word, values) in [("death", &outcome.suspected_after_ms), ("gone", &outcome.gone_after_ms)] {
            for (percent, share) in [(50, 0.5), (99, 0.99)] {
                let value = quantile_s(values, share).ok_or("nobody was found dead")?;
                self.line(&format!("awake_{word}_p{percent}_{suffix}"), format!("{value:.2}"), "s")?;
            }
        }
        Ok(())
    }

    /// `w` and `w-harsh`: what a fleet of one group costs in ghosts and false deaths.
    pub fn one_group(&mut self, workload: &Workload) -> Result<()> {
        let window = Window::minutes(120, 240);
        let word = workload.name.replace('-', "_");
        // The sum is of interest where many die: the harsh workload's has the plain name.
        let suffix = if word == "w_harsh" { String::new() } else { format!("_{word}") };
        let (mut rows, outcome) = self.dormouse(workload, window, &word)?;
        for (name, error) in [
            ("p_alive_sum_error", mean(&outcome.errors)),
            ("p_alive_sum_error_of_members", mean(&outcome.errors_of_members)),
            ("p_alive_calibration_error", Some(outcome.calibration_error())),
        ] {
            let error = error.ok_or("the table estimates nothing")?;
            self.line(&format!("{name}{suffix}"), format!("{error:.5}"), "ratio")?;
        }
        let gaps = FleetGaps::of(workload, self.scale.seed, window);
        let equal_ms = gaps.best_ttl_ms(outcome.false_deaths_per_freeze(), Equal::PerFreeze);
        let mut others = vec![Contender::fixed("best_single_ttl", equal_ms)];
        others.extend(Contender::published(self.scale.seed));
        self.others(workload, window, others, &word, &mut rows)?;
        self.ghost_table(workload, &rows)
    }

    /// `w-mix`: ten groups. How many more ghosts a single lease for all of them costs.
    pub fn mix(&mut self) -> Result<()> {
        let workload = Workload::mix(self.scale.nodes);
        let window = Window::minutes(240, 240);
        let (mut rows, outcome) = self.dormouse(&workload, window, "w_mix")?;
        let gaps = FleetGaps::of(&workload, self.scale.seed, window);
        let held = [
            ("best_single_ttl", Equal::PerFreeze, outcome.false_deaths_per_freeze()),
            ("best_single_ttl_mean_of_groups", Equal::MeanOfGroups, outcome.mean_of_groups()),
        ];
        let bests = held.map(|(suffix, equal, rate)| Contender::fixed(suffix, gaps.best_ttl_ms(rate, equal)));
        let ghosts = self.others(&workload, window, bests.into(), "w_mix", &mut rows)?;
        for ((suffix, ..), ghosts) in held.iter().zip(ghosts) {
            let ratio = format!("{:.2}", ghosts / outcome.ghost_ratio().max(f64::MIN_POSITIVE));
            self.line(&format!("ghosts_vs_{suffix}_wmix"), ratio, "ratio")?;
        }
        self.others(&workload, window, Contender::published(self.scale.seed), "w_mix", &mut rows)?;
        let tuned = self.tuned(&workload, window, outcome.false_deaths_per_freeze());
        let tuned_ghosts = self.others(&workload, window, tuned.into(), "w_mix", &mut rows)?;
        for (suffix, ghosts) in ["phi", "nomad"].iter().zip(tuned_ghosts) {
            let ratio = format!("{:.2}", ghosts / outcome.ghost_ratio().max(f64::MIN_POSITIVE));
            self.line(&format!("ghosts_vs_tuned_{suffix}_wmix"), ratio, "ratio")?;
        }
        self.ghost_table(&workload, &rows)
    }

    /// Published detectors with the one number changed that makes them as patient as that.
    fn tuned(&self, workload: &Workload, window: Window, rate: f64) -> [Contender; 2] {
        let seed = self.scale.seed;
        let rate_of = |detector: &mut dyn Detector| {
            trial::run(workload.fleet(seed), detector, window).false_deaths_per_freeze()
        };
        let threshold = as_patient(rate, 8.0..8_000.0, |it| rate_of(&mut Phi::new(it)));
        let factor = as_patient(rate, 0.1..100.0, |it| rate_of(&mut ScaledTtl::scaled(seed, it)));
        let phi = format!("phi accrual with threshold {threshold:.0}");
        let nomad = format!("lease scaled by load, times {factor:.2}");
        [
            Contender::new(phi, "tuned_phi", Phi::new(threshold)),
            Contender::new(nomad, "tuned_nomad", ScaledTtl::scaled(seed, factor)),
        ]
    }

    fn dormouse(
        &mut self,
        workload: &Workload,
        window: Window,
        word: &str,
    ) -> Result<(Vec<Vec<String>>, Outcome)> {
        let mut dormouse = Dormouse::new(usual_leases(), workload.gaps.len())?;
        let outcome = trial::run(workload.fleet(self.scale.seed), &mut dormouse, window);
        expect_none(dormouse.unexpected())?;
        self.ghosts(&outcome, word)?;
        Ok((vec![ghost_row("Dormouse", &outcome)], outcome))
    }

    fn others(
        &mut self,
        workload: &Workload,
        window: Window,
        contenders: Vec<Contender>,
        word: &str,
        rows: &mut Vec<Vec<String>>,
    ) -> Result<Vec<f64>> {
        let mut ghosts = Vec::new();
        for Contender { title, suffix, mut detector } in contenders {
            let outcome = trial::run(workload.fleet(self.scale.seed), detector.as_mut(), window);
            self.ghosts(&outcome, &format!("{word}_{suffix}"))?;
            rows.push(ghost_row(&title, &outcome));
            ghosts.push(outcome.ghost_ratio());
        }
        Ok(ghosts)
    }

    fn ghosts(&mut self, outcome: &Outcome, word: &str) -> Result<()> {
        self.line(&format!("ghost_ratio_{word}"), format!("{:.5}", outcome.ghost_ratio()), "ratio")?;
        let rate = format!("{:.6}", outcome.false_deaths_per_freeze());
        self.line(&format!("false_deaths_per_freeze_{word}"), rate, "ratio")
    }

    fn ghost_table(&mut self, workload: &Workload, rows: &[Vec<String>]) -> Result<()> {
        let head =
            ["detector", "freezes", "false deaths per freeze", "mean of groups", "ghosts per living node"];
        self.table(&format!("Workload {}", workload.name), &head, rows)
    }
}

fn expect_none(unexpected: u64) -> Result<()> {
    if unexpected == 0 {
        Ok(())
    } else {
        Err(format!("{unexpected} answers of the table make no sense").into())
    }
}

fn sleep_row(title: &str, outcome: &Outcome) -> Vec<String> {
    let total = outcome.total();
    vec![title.to_owned(), total.freezes.to_string(), total.false_deaths.to_string()]
}

fn ghost_row(title: &str, outcome: &Outcome) -> Vec<String> {
    let percent = |share: f64| format!("{:.3} %", share * 100.0);
    vec![
        title.to_owned(),
        outcome.total().freezes.to_string(),
        percent(outcome.false_deaths_per_freeze()),
        percent(outcome.mean_of_groups()),
        percent(outcome.ghost_ratio()),
    ]
}

fn delay_row(title: &str, scale: Scale, outcome: &Outcome) -> Vec<String> {
    let seconds = |values: &[u64], share: f64| {
        quantile_s(values, share).map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
    };
    vec![
        title.to_owned(),
        scale.nodes.to_string(),
        outcome.died_awake.to_string(),
        seconds(&outcome.suspected_after_ms, 0.5),
        seconds(&outcome.suspected_after_ms, 0.99),
        seconds(&outcome.gone_after_ms, 0.5),
        seconds(&outcome.gone_after_ms, 0.99),
        outcome.total().false_deaths.to_string(),
    ]
}
