//! Many function processes, which are frozen with SIGSTOP where they are wanted, thawed with SIGCONT and killed.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, PipeWriter, Write as _, pipe},
    process::{Child, Command},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::relay::{Outcome, PATIENCE};

/// Stands for a name in the line with which a fleet makes sure that it has heard everything.
const MARK: &str = "mark";
/// How long those who were elsewhere may run before they are frozen again.
const PAUSE: Duration = Duration::from_millis(20);

/// What a function said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The first call of an invocation is under way.
    Wakes,
    /// In the middle of an invocation; it has written and not pushed.
    Awake,
    /// The last call of an invocation is under way.
    Sleeps,
    /// It has declared sleep, and all that it wrote is saved.
    Asleep,
    /// It may have declared sleep.
    Unsaved,
}

/// A step, and of which invocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) step: Step,
    pub(crate) nth: u64,
}

/// Functions by their names. All that still run are killed when it is dropped.
pub(crate) struct Fleet {
    functions: BTreeMap<usize, Child>,
    said: BTreeMap<usize, Said>,
    lines: Receiver<String>,
    /// All of them write into it, a line with each write, so that lines arrive whole and in their order.
    pipe: PipeWriter,
    marks: u64,
}

impl Fleet {
    pub(crate) fn new() -> Outcome<Self> {
        let (reader, pipe) = pipe()?;
        let (send, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { functions: BTreeMap::new(), said: BTreeMap::new(), lines, pipe, marks: 0 })
    }

    /// Starts a function process, whose relay is there.
    pub(crate) fn start(&mut self, name: usize, url: &str, options: &[&str]) -> Outcome {
        let mut command = Command::new(env!("CARGO_BIN_EXE_function"));
        let child = command.args([url, &name.to_string()]).args(options).stdout(self.pipe.try_clone()?);
        self.functions.insert(name, child.spawn()?);
        Ok(())
    }

    pub(crate) fn names(&self) -> Vec<usize> {
        self.functions.keys().copied().collect()
    }

    /// What it said last, as far as it was heard.
    pub(crate) fn said(&self, name: usize) -> Outcome<Said> {
        Ok(*self.said.get(&name).ok_or_else(|| format!("function {name} has said nothing"))?)
    }

    /// Takes in everything that was said until now.
    pub(crate) fn listen(&mut self) -> Outcome {
        self.marks += 1;
        self.pipe.write_all(format!("{MARK} {} 0\n", self.marks).as_bytes())?;
        loop {
            let line = self.lines.recv_timeout(PATIENCE)?;
            let mut words = line.split(' ');
            let mut word = || words.next().ok_or("too few words");
            let (name, step, nth) = (word()?, word()?, word()?.parse()?);
            if name == MARK {
                if step == self.marks.to_string() {
                    return Ok(());
                }
                continue;
            }
            self.said.insert(name.parse()?, Said { step: step_of(step)?, nth });
        }
    }

    /// Waits until each of them has gone to sleep after an invocation later than the one named for it.
    pub(crate) fn await_sleep(&mut self, after: &[(usize, u64)]) -> Outcome {
        let began = Instant::now();
        loop {
            self.listen()?;
            let slept = |(name, nth): &&(usize, u64)| {
                let said = self.said.get(name);
                said.is_some_and(|it| it.nth > nth + 1 || (it.nth == nth + 1 && it.step == Step::Asleep))
            };
            match after.iter().find(|it| !slept(it)) {
                None => return Ok(()),
                Some((name, nth)) if began.elapsed() > PATIENCE => {
                    let last = self.said.get(name);
                    return Err(format!("function {name} did not sleep after {nth}: {last:?}").into());
                }
                Some(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Freezes each of them in this step, whichever invocation it is of.
    pub(crate) fn freeze(&mut self, names: &[usize], step: Step) -> Outcome {
        let began = Instant::now();
        let mut wanted = names.to_vec();
        loop {
            self.signal(&wanted, Signal::STOP)?;
            for name in &wanted {
                waitpid(Some(self.pid(*name)?), WaitOptions::UNTRACED)?;
            }
            // Nobody of them says anything from here on.
            self.listen()?;
            wanted.retain(|name| self.said.get(name).is_none_or(|said| said.step != step));
            if wanted.is_empty() {
                return Ok(());
            }
            self.thaw(&wanted)?;
            if began.elapsed() > PATIENCE {
                return Err(format!("{wanted:?} are never {step:?}").into());
            }
            thread::sleep(PAUSE);
        }
    }

    pub(crate) fn thaw(&self, names: &[usize]) -> Outcome {
        self.signal(names, Signal::CONT)
    }

    /// SIGKILL: nothing is finished, nothing is said. Frozen ones end, too.
    pub(crate) fn kill(&mut self, names: &[usize]) -> Outcome {
        for name in names {
            let mut child = self.functions.remove(name).ok_or("no such function")?;
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn signal(&self, names: &[usize], signal: Signal) -> Outcome {
        for name in names {
            kill_process(self.pid(*name)?, signal)?;
        }
        Ok(())
    }

    fn pid(&self, name: usize) -> Outcome<Pid> {
        let child = self.functions.get(&name).ok_or("no such function")?;
        Ok(Pid::from_child(child))
    }
}

fn step_of(word: &str) -> Outcome<Step> {
    Ok(match word {
        "wakes" => Step::Wakes,
        "awake" => Step::Awake,
        "sleeps" => Step::Sleeps,
        "asleep" => Step::Asleep,
        "unsaved" => Step::Unsaved,
        _ => return Err(format!("{word} is no step").into()),
    })
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for child in self.functions.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
