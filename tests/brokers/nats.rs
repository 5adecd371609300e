//! NATS servers that a test starts, kills and wipes: unprivileged, on loopback, in a folder that vanishes.

use std::{
    fs,
    io::Read as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use dormouse_relay::log::nats::Address;
use tempfile::TempDir;

/// Looks at a server that starts, `LOOK` apart: longer than a loaded machine takes.
const LOOKS: u32 = 3_000;
const LOOK: Duration = Duration::from_millis(10);

/// Which server, by its folder below `brokers` in the target folder.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Release {
    Current,
    Debian,
}

impl Release {
    /// The program, or `None` and a loud line if `tests/brokers/install` has not put it there.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let folder = match self {
            Self::Current => "nats-current",
            Self::Debian => "nats-debian",
        };
        let exe = std::env::current_exe().expect("a test has an executable");
        let target = exe.ancestors().nth(3).expect("it lies in target/PROFILE/deps");
        let program = target.join("brokers").join(folder).join("nats-server");
        if program.is_file() {
            return Some(program);
        }
        // Where the tests have to be whole, a broker that is missing is a failure.
        assert!(std::env::var_os("REQUIRE_BROKERS").is_none(), "{} is missing", program.display());
        eprintln!("SKIPPED: needs {}; tests/brokers/install puts it there", program.display());
        None
    }
}

/// What differs from server to server, as lines of its configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// Inside of `jetstream { }`.
    pub(crate) jetstream: &'static str,
    /// Outside.
    pub(crate) server: &'static str,
}

/// A server; it is killed when it is dropped.
pub(crate) struct NatsServer {
    program: PathBuf,
    settings: Settings,
    dir: TempDir,
    port: u16,
    monitor_port: u16,
    child: Option<Child>,
}

/// A port below those that the kernel gives to outgoing connections: a client that tries to reach a server that is down
/// would otherwise come to own it.
pub(crate) fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..1_000).map(|_| fastrand::u16(10_000..30_000)).find(free).expect("a free port")
}

impl NatsServer {
    /// `None` if the server is not installed.
    pub(crate) fn start(release: Release, settings: Settings) -> Option<Self> {
        let program = release.program()?;
        // Another test may take the port between the look and the start.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a folder");
            let (port, monitor_port) = (free_port(), free_port());
            let mut server =
                Self { program: program.clone(), settings, dir, port, monitor_port, child: None };
            if server.try_run() {
                return Some(server);
            }
        }
        panic!("{} does not start", program.display());
    }

    /// Starts it again on the same port and folder.
    pub(crate) fn run(&mut self) {
        assert!(self.try_run(), "the server does not start again: {}", self.said());
    }

    fn try_run(&mut self) -> bool {
        let dir = self.dir.path();
        let configuration = format!(
            "server_name: test-{port}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
             jetstream {{ store_dir: \"{store}\", max_mem: 64MB, max_file: 1GB\n{jetstream} }}\n{server}\n",
            port = self.port,
            monitor = self.monitor_port,
            store = self.store().display(),
            jetstream = self.settings.jetstream,
            server = self.settings.server,
        );
        fs::write(dir.join("nats.conf"), configuration).expect("written");
        let said = fs::File::options().create(true).append(true).open(dir.join("nats.log")).expect("a file");
        let child = Command::new(&self.program)
            .arg("-c")
            .arg(dir.join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn()
            .expect("the server starts");
        let child = self.child.insert(child);
        for _ in 0..LOOKS {
            if is_serving(self.port) {
                return true;
            }
            if child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            thread::sleep(LOOK);
        }
        false
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("nats.log")).unwrap_or_default()
    }

    /// SIGKILL: nothing is flushed, nothing is said. What the kernel has taken stays.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is gone");
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn stop(&mut self) {
        let mut child = self.child.take().expect("it runs");
        let asked = Command::new("kill").arg(child.id().to_string()).status().expect("kill runs");
        assert!(asked.success());
        child.wait().expect("it is gone");
    }

    /// Where it keeps everything.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("js")
    }

    /// A copy of what it keeps, to be put back later. Only while it does not run.
    pub(crate) fn save(&self) -> TempDir {
        let saved = tempfile::tempdir().expect("a folder");
        copy(&self.store(), saved.path());
        saved
    }

    /// Forgets everything, or all that is not in `saved`. Only while it does not run.
    pub(crate) fn wipe(&self, saved: Option<&TempDir>) {
        fs::remove_dir_all(self.store()).expect("it was there");
        if let Some(saved) = saved {
            copy(saved.path(), &self.store());
        }
    }

    /// The address of a stream on it.
    pub(crate) fn address(&self, stream: &str) -> Address {
        self.parse(&format!("nats://127.0.0.1:{}/{stream}", self.port))
    }

    /// The same with credentials before it.
    pub(crate) fn address_as(&self, credentials: &str, stream: &str) -> Address {
        self.parse(&format!("nats://{credentials}@127.0.0.1:{}/{stream}", self.port))
    }

    /// The same with its monitoring port.
    pub(crate) fn monitored_address(&self, stream: &str) -> Address {
        self.parse(&format!(
            "nats://127.0.0.1:{}/{stream}?monitor=127.0.0.1:{}",
            self.port, self.monitor_port
        ))
    }

    fn parse(&self, text: &str) -> Address {
        text.parse().unwrap_or_else(|rule| panic!("{text} is not {rule} ({})", self.port))
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A server speaks first, and only when it has read in what it keeps.
pub(crate) fn is_serving(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut greeting = [0; 5];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"INFO "
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}
