//! Whether those who are left agree, with each other and with the relay.

use std::{error::Error, io, sync::Arc};

use tokio::task::JoinSet;

use crate::{
    Plan,
    function::{Answer, Invocation},
    place::Place,
    process::Process,
    report::Tally,
};

#[derive(Debug)]
pub(crate) struct Verdict {
    /// What the relay says.
    pub(crate) spent: i64,
    /// How many were asked ...
    pub(crate) asked: usize,
    /// ... and what those say who say something else, or nothing current.
    pub(crate) dissent: Vec<String>,
    /// Ads that were reported as saved, and are not counted.
    pub(crate) lost: u64,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.dissent.is_empty() && self.lost == 0
    }
}

pub(crate) async fn judge(
    plan: &Plan,
    place: &Arc<Place>,
    tally: &Tally,
    processes: &mut Vec<Process>,
) -> Result<Verdict, Box<dyn Error>> {
    // Twice, because what somebody could not save before goes with the first wake, and only then all is said.
    look(processes).await?;
    let spent = place.spent().await?;
    let answers = look(processes).await?;
    let asked = answers.len();
    let disagrees = |answer: &Answer| answer.value != spent || !answer.is_current;
    let mut dissent: Vec<String> =
        answers.iter().filter(|it| disagrees(it)).map(|it| format!("{it:?}")).collect();
    if asked < plan.processes.into() {
        dissent.push(format!("{} processes are missing", usize::from(plan.processes) - asked));
    }
    let lost = tally.shown_and_saved.get().saturating_sub(spent.unsigned_abs());
    Ok(Verdict { spent, asked, dissent, lost })
}

/// Invokes everybody at once; nobody shows anything.
async fn look(processes: &mut Vec<Process>) -> io::Result<Vec<Answer>> {
    let looking = Invocation { request_id: String::new(), left_ms: 10_000, work_ms: 0, budget: None };
    let mut asked = JoinSet::new();
    for mut process in processes.drain(..) {
        let looking = looking.clone();
        asked.spawn(async move {
            process.thaw()?;
            let answer = process.invoke(&looking).await?;
            process.freeze()?;
            io::Result::Ok((process, answer))
        });
    }
    let mut answers = Vec::new();
    while let Some(answered) = asked.join_next().await {
        let (process, answer) = answered.map_err(io::Error::other)??;
        processes.push(process);
        answers.push(answer);
    }
    Ok(answers)
}
