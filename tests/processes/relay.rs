//! The relay's own binary as a child process, on an embedded log in a folder that vanishes. It is killed and started
//! again on the same folder and the same ports.
#![expect(clippy::disallowed_methods, reason = "real processes are waited for in real time")]

use std::{
    error::Error,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A relay that is killed when it is dropped.
pub(crate) struct RelayProcess {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
    admin_port: u16,
    env: Vec<(&'static str, String)>,
}

/// The relay's own program, with the features that tests need.
pub(crate) fn relay_binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_relay"))
}

/// A port below those that the kernel gives to outgoing connections: one of the callers that try to reach the relay
/// while it is down would otherwise come to own it.
fn free_port() -> Outcome<u16> {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let found = (0..1_000).map(|_| fastrand::u16(20_000..30_000)).find(free);
    Ok(found.ok_or("no port is free")?)
}

impl RelayProcess {
    pub(crate) fn start(env: &[(&'static str, &str)]) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let (port, admin_port) = (free_port()?, free_port()?);
        let mut relay = Self { child: None, dir, port, admin_port, env: Vec::new() };
        relay.env = env.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        relay.restart()?;
        Ok(relay)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The page for people, with the slash at its end.
    #[allow(dead_code, reason = "only the test of the page looks at it")]
    pub(crate) fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.admin_port)
    }

    /// For signals to it; `None` while it is killed.
    #[allow(dead_code, reason = "not every test freezes its relay")]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn restart(&mut self) -> Outcome {
        let mut command = Command::new(relay_binary());
        // What a test is told by the environment is no setting of the relay, and a relay refuses what it does not know.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DORMOUSE_"))
        {
            command.env_remove(name);
        }
        let child = command
            .env("DORMOUSE_LISTEN", format!("127.0.0.1:{}", self.port))
            .env("DORMOUSE_ADMIN_LISTEN", format!("127.0.0.1:{}", self.admin_port))
            .env("DORMOUSE_DATA_DIR", self.dir.path())
            .env("DORMOUSE_LOG", "warn")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        let began = Instant::now();
        while !self.get("/readyz").is_ok_and(|page| page.starts_with("HTTP/1.1 200")) {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                return Err(format!("the relay ended: {status}").into());
            }
            if began.elapsed() > PATIENCE {
                return Err("the relay did not become ready".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// SIGKILL: nothing is finished, nothing is said.
    #[allow(dead_code, reason = "not every test kills it")]
    pub(crate) fn kill(&mut self) -> Outcome {
        let mut child = self.child.take().ok_or("not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM: it finishes what is under way, and has to end well.
    #[allow(dead_code, reason = "most tests kill it")]
    pub(crate) fn stop(&mut self) -> Outcome {
        let mut child = self.child.take().ok_or("not running")?;
        let asked = Command::new("kill").arg(child.id().to_string()).status()?;
        let ended = child.wait()?;
        if asked.success() && ended.success() { Ok(()) } else { Err(format!("it ended with {ended}").into()) }
    }

    /// From the next start on it has an empty folder.
    #[allow(dead_code, reason = "most tests keep the folder")]
    pub(crate) fn move_to_an_empty_folder(&mut self) -> Outcome<&Path> {
        self.dir = tempfile::tempdir()?;
        Ok(self.dir.path())
    }

    pub(crate) fn get(&self, path: &str) -> Outcome<String> {
        self.get_accepting(path, "*/*")
    }

    /// What the admin port answers to a caller that says which format it takes.
    pub(crate) fn get_accepting(&self, path: &str, accept: &str) -> Outcome<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: relay\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
        )?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        Ok(page)
    }

    pub(crate) fn metric(&self, name: &str) -> Outcome<u64> {
        let page = self.get("/metrics")?;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.ok_or_else(|| format!("no {name}"))?.parse()?)
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
