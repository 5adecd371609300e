//! The platform: invokes, freezes, thaws, kills and replaces. Each function has a schedule of its own, which follows
//! from the seed alone; only who overtakes whom is left to the machine.

use std::{io, sync::Arc, time::Duration};

use fastrand::Rng;
use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{Plan, function::Invocation, pause, place::Place, process::Process, report::Tally};

/// What the platform grants an invocation.
const TIME_LEFT: Duration = Duration::from_secs(10);

/// What happens next to one function.
struct Next {
    frozen_for: Duration,
    work_ms: u64,
    fate: Fate,
}

enum Fate {
    Lives,
    /// Killed while it is frozen.
    DiesAsleep,
    /// Killed so long after an invocation has begun.
    DiesAwake(Duration),
}

impl Next {
    fn draw(rng: &mut Rng) -> Self {
        Self {
            frozen_for: Duration::from_millis(rng.u64(100..1_000)),
            work_ms: rng.u64(5..40),
            fate: match rng.u8(0..100) {
                0 => Fate::DiesAsleep,
                1 => Fate::DiesAwake(Duration::from_millis(rng.u64(0..50))),
                _ => Fate::Lives,
            },
        }
    }
}

/// Runs every function until the time is over. What is left is frozen.
pub(crate) async fn invoke_for_a_while(
    plan: &Plan,
    place: &Arc<Place>,
    tally: &Arc<Tally>,
    stopped: &watch::Receiver<bool>,
) -> io::Result<Vec<Process>> {
    let ends_at = Instant::now() + Duration::from_secs(plan.seconds.into());
    let mut functions = JoinSet::new();
    for number in 0..plan.processes {
        let function = Function {
            number,
            budget: plan.budget,
            rng: Rng::with_seed(plan.seed ^ (u64::from(number) << 32)),
            place: Arc::clone(place),
            tally: Arc::clone(tally),
            stopped: stopped.clone(),
        };
        functions.spawn(function.live(ends_at));
    }
    let mut processes = Vec::new();
    while let Some(function) = functions.join_next().await {
        processes.push(function.map_err(io::Error::other)??);
    }
    Ok(processes)
}

/// One function, in one process after the other.
struct Function {
    number: u16,
    budget: u32,
    rng: Rng,
    place: Arc<Place>,
    tally: Arc<Tally>,
    stopped: watch::Receiver<bool>,
}

impl Function {
    async fn live(mut self, ends_at: Instant) -> io::Result<Process> {
        let mut process = self.place.start_function()?;
        for count in 0_u64.. {
            let next = Next::draw(&mut self.rng);
            process.freeze()?;
            self.tally.frozen.up();
            pause(next.frozen_for, &self.stopped).await;
            self.tally.frozen.down();
            if Instant::now() >= ends_at || *self.stopped.borrow() {
                break;
            }
            let mut killed_after = None;
            match next.fate {
                Fate::Lives => process.thaw()?,
                Fate::DiesAsleep => {
                    self.tally.killed_asleep.up();
                    process = self.replace(process).await?;
                }
                Fate::DiesAwake(after) => {
                    process.thaw()?;
                    killed_after = Some(after);
                }
            }
            let invocation = Invocation {
                request_id: format!("{}-{}-{count}", std::process::id(), self.number),
                left_ms: u64::try_from(TIME_LEFT.as_millis()).unwrap_or(u64::MAX),
                work_ms: next.work_ms,
                budget: Some(self.budget),
            };
            process = self.invoke(process, &invocation, killed_after).await?;
        }
        Ok(process)
    }

    /// Invokes until there is an answer, in a new process each time: a platform does so, too.
    async fn invoke(
        &self,
        mut process: Process,
        invocation: &Invocation,
        killed_after: Option<Duration>,
    ) -> io::Result<Process> {
        if let Some(after) = killed_after {
            // An answer that comes before the end counts like any other, and the process dies nevertheless.
            let answered = tokio::select! {
                answer = process.invoke(invocation) => answer.ok(),
                () = tokio::time::sleep(after) => None,
            };
            self.tally.killed_awake.up();
            process = self.replace(process).await?;
            if let Some(answer) = answered {
                self.tally.answered(&answer);
                return Ok(process);
            }
            self.tally.invoked_again.up();
        }
        loop {
            match process.invoke(invocation).await {
                Ok(answer) => {
                    self.tally.answered(&answer);
                    return Ok(process);
                }
                Err(error) => {
                    eprintln!("\nno answer from a function: {error}");
                    self.tally.failed.up();
                    process = self.replace(process).await?;
                }
            }
        }
    }

    async fn replace(&self, process: Process) -> io::Result<Process> {
        process.kill().await?;
        self.place.start_function()
    }
}
