//! A real process, and what a platform does to it. Signals go to a process id that is certainly still this process: it
//! is reaped only here, and nothing is sent afterwards.

use std::{io, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinSet,
    time::timeout,
};

use crate::function::{Answer, Invocation, ROLE};

/// How long a process may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(3);

/// Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Runs this very program as a function.
    ///
    /// Each is a process group of its own, so that Ctrl-C reaches the parent alone, which ends them in order. Should
    /// the parent itself be killed, those that run find their input closed, and the system wakes and hangs up those
    /// that are frozen, because their groups have lost their parent.
    pub(crate) fn start(url: &str, namespace: &str) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, "1")
            .env("DORMOUSE_URL", url)
            .env("DORMOUSE_NAMESPACE", namespace)
            .env("DORMOUSE_GROUP", "ads")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (pid, (stdin, stdout)) = pid.zip(pipes).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, pid, stdin, answers: BufReader::new(stdout).lines() })
    }

    pub(crate) fn freeze(&self) -> io::Result<()> {
        Ok(kill_process(self.pid, Signal::STOP)?)
    }

    pub(crate) fn thaw(&self) -> io::Result<()> {
        Ok(kill_process(self.pid, Signal::CONT)?)
    }

    /// Without warning, frozen or not.
    pub(crate) async fn kill(mut self) -> io::Result<()> {
        kill_process(self.pid, Signal::KILL)?;
        self.child.wait().await.map(drop)
    }

    /// One invocation. The process must be running.
    pub(crate) async fn invoke(&mut self, invocation: &Invocation) -> io::Result<Answer> {
        let line = serde_json::to_string(invocation)? + "\n";
        self.stdin.write_all(line.as_bytes()).await?;
        let answer = timeout(Duration::from_millis(invocation.left_ms), self.answers.next_line());
        let answer = answer.await.map_err(|_| io::ErrorKind::TimedOut)??;
        Ok(serde_json::from_str(&answer.ok_or(io::ErrorKind::UnexpectedEof)?)?)
    }

    /// Lets it end by itself, and sees to it that it does.
    async fn end(self) -> io::Result<()> {
        self.thaw()?;
        let Self { mut child, stdin, .. } = self;
        drop(stdin);
        match timeout(FAREWELL, child.wait()).await {
            Ok(ended) => ended.map(drop),
            Err(_) => child.kill().await,
        }
    }
}

/// Ends them all and waits for it.
pub(crate) async fn finish(processes: Vec<Process>) {
    let mut ending: JoinSet<io::Result<()>> = processes.into_iter().map(Process::end).collect();
    while let Some(ended) = ending.join_next().await {
        if let Ok(Err(error)) = ended {
            eprintln!("a process did not end as it should: {error}");
        }
    }
}
