//! `RabbitMQ` servers that a test starts, kills and wipes: unprivileged, on loopback, in a folder that vanishes.
//!
//! A start takes seconds, so a test binary has few of them, and tests that need no server of their own share one.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use dormouse_relay::log::rabbitmq::Address;
use tempfile::TempDir;

/// Looks at a server that starts, `LOOK` apart: longer than a loaded machine takes.
const LOOKS: u32 = 6_000;
const LOOK: Duration = Duration::from_millis(20);

/// A server and the name service that it needs; both are killed when it is dropped.
pub(crate) struct RabbitServer {
    root: PathBuf,
    dir: TempDir,
    ports: Ports,
    child: Option<Child>,
    name_service: Child,
}

#[derive(Clone, Copy)]
struct Ports {
    amqp: u16,
    /// Between nodes, of which there is one.
    distribution: u16,
    names: u16,
}

/// Where `tests/brokers/install` has put it, or `None` and a loud line.
fn root() -> Option<PathBuf> {
    let exe = std::env::current_exe().expect("a test has an executable");
    let target = exe.ancestors().nth(3).expect("it lies in target/PROFILE/deps");
    let root = target.join("brokers/rabbitmq-debian/usr/lib");
    if root.join("erlang/bin/erl").is_file() {
        return Some(root);
    }
    // Where the tests have to be whole, a broker that is missing is a failure.
    assert!(std::env::var_os("REQUIRE_BROKERS").is_none(), "{} is missing", root.display());
    eprintln!("SKIPPED: needs {}; tests/brokers/install puts it there", root.display());
    None
}

/// The one folder in `parent` whose name begins like that: it ends in a version.
fn versioned(parent: &Path, begins: &str) -> PathBuf {
    let entries = fs::read_dir(parent).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(begins));
    paths.filter(named).max().unwrap_or_else(|| panic!("no {begins} in {}", parent.display()))
}

/// A port below those that the kernel gives to outgoing connections: a client that tries to reach a server that is down
/// would otherwise come to own it.
fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (0..1_000).map(|_| fastrand::u16(10_000..30_000)).find(free).expect("a free port")
}

impl RabbitServer {
    /// `None` if the server is not installed.
    pub(crate) fn start() -> Option<Self> {
        let root = root()?;
        // Another test may take a port between the look and the start.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a folder");
            let ports = Ports { amqp: free_port(), distribution: free_port(), names: free_port() };
            for folder in ["home", "conf", "log", "mnesia"] {
                fs::create_dir(dir.path().join(folder)).expect("a folder");
            }
            fs::write(dir.path().join("conf/enabled_plugins"), "[].").expect("written");
            let name_service = run_name_service(&root, ports.names);
            let mut server = Self { root: root.clone(), dir, ports, child: None, name_service };
            if server.try_run("") {
                return Some(server);
            }
            eprintln!("{}", server.said());
        }
        panic!("RabbitMQ does not start");
    }

    /// Its version, as its folder is called.
    pub(crate) fn version(&self) -> String {
        let folder = self.home();
        folder.file_name().expect("a name").to_string_lossy().replace("rabbitmq_server-", "")
    }

    fn home(&self) -> PathBuf {
        versioned(&self.root.join("rabbitmq/lib"), "rabbitmq_server-")
    }

    /// Starts it again on the same ports and folder.
    pub(crate) fn run(&mut self) {
        self.run_with("");
    }

    /// The same with some more lines of configuration.
    pub(crate) fn run_with(&mut self, configuration: &str) {
        assert!(self.try_run(configuration), "the server does not start again: {}", self.said());
    }

    /// Starts it again if it does not run.
    pub(crate) fn run_if_ended(&mut self) {
        if self.child.is_none() {
            self.run();
        }
    }

    fn try_run(&mut self, configuration: &str) -> bool {
        let disk = if configuration.contains("disk_free") { "" } else { "disk_free_limit.absolute = 50MB\n" };
        let configuration = format!(
            "listeners.tcp.local = 127.0.0.1:{}\nlog.console = false\nlog.file.level = warning\n\
             vm_memory_high_watermark.absolute = 1GB\n{disk}{configuration}\n",
            self.ports.amqp
        );
        fs::write(self.dir.path().join("conf/rabbitmq.conf"), configuration).expect("written");
        let child = self.command().spawn().expect("the server starts");
        let child = self.child.insert(child);
        for _ in 0..LOOKS {
            if is_serving(self.ports.amqp) {
                return true;
            }
            if child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            thread::sleep(LOOK);
        }
        false
    }

    /// The virtual machine itself, as the server's own script would start it.
    fn command(&self) -> Command {
        let (erlang, home, dir, ports) = (self.root.join("erlang"), self.home(), self.dir.path(), self.ports);
        let machine = versioned(&erlang, "erts-").join("bin");
        let said = fs::File::options().create(true).append(true).open(dir.join("said")).expect("a file");
        let mut command = Command::new(machine.join("erlexec"));
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", erlang.join("bin").display()))
            .env("HOME", dir.join("home"))
            .env("LANG", "C.UTF-8")
            .env("ROOTDIR", &erlang)
            .env("BINDIR", &machine)
            .env("EMU", "beam")
            .env("PROGNAME", "erl")
            .env("ERL_LIBS", home.join("plugins"))
            .env("ERL_EPMD_PORT", ports.names.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("SYS_PREFIX", "")
            .env("RABBITMQ_HOME", &home)
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", dir.join("conf/rabbitmq"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("conf/advanced"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("conf/enabled_plugins"))
            .env("RABBITMQ_NODENAME", format!("t{}@localhost", ports.amqp))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", ports.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", ports.distribution.to_string())
            .env("RABBITMQ_MNESIA_BASE", self.store())
            .env("RABBITMQ_FEATURE_FLAGS_FILE", self.store().join("feature_flags"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_PID_FILE", dir.join("pid"))
            .args("-noinput -s rabbit boot -boot start_sasl +W w +P 1048576 +S 2:2".split(' '))
            .args("+sbwt none +sbwtdcpu none +sbwtdio none".split(' '))
            .args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"])
            .args(["-kernel", "prevent_overlapping_partitions", "false"])
            .args(["-syslog", "logger", "[]", "-syslog", "syslog_error_logger", "false"])
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a file"))
            .stderr(said);
        command
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.path().join("said")).unwrap_or_default()
    }

    fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it runs");
        let asked = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
        assert!(asked.success());
    }

    /// SIGKILL: nothing is flushed, nothing is said. What the kernel has taken stays.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is gone");
    }

    /// SIGTERM, and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.signal("-TERM");
        self.child.take().expect("it runs").wait().expect("it is gone");
    }

    /// SIGSTOP: it answers nothing, and its connections stay.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Where it keeps everything.
    fn store(&self) -> PathBuf {
        self.dir.path().join("mnesia")
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
        fs::create_dir(self.store()).expect("a folder");
        if let Some(saved) = saved {
            copy(saved.path(), &self.store());
        }
    }

    /// The address of a log on it.
    pub(crate) fn address(&self, stream: &str) -> Address {
        self.parse(&format!("amqp://127.0.0.1:{}?stream={stream}", self.ports.amqp))
    }

    /// The same with credentials before it.
    pub(crate) fn address_as(&self, credentials: &str, stream: &str) -> Address {
        self.parse(&format!("amqp://{credentials}@127.0.0.1:{}?stream={stream}", self.ports.amqp))
    }

    /// The same with more said behind it.
    pub(crate) fn address_with(&self, stream: &str, more: &str) -> Address {
        self.parse(&format!("amqp://127.0.0.1:{}?stream={stream}&{more}", self.ports.amqp))
    }

    /// The server itself, as any client finds it.
    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}/%2f", self.ports.amqp)
    }

    fn parse(&self, text: &str) -> Address {
        text.parse().unwrap_or_else(|rule| panic!("{text} is not {rule} ({})", self.ports.amqp))
    }
}

impl Drop for RabbitServer {
    fn drop(&mut self) {
        for child in self.child.iter_mut().chain([&mut self.name_service]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The server would leave one behind as a daemon if it found none.
fn run_name_service(root: &Path, port: u16) -> Child {
    let program = versioned(&root.join("erlang"), "erts-").join("bin/epmd");
    let arguments = ["-port", &port.to_string(), "-address", "127.0.0.1"];
    let mut command = Command::new(program);
    command.env_clear().args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().expect("the name service starts");
    let up = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(
        (0..LOOKS).any(|_| up() || {
            thread::sleep(LOOK);
            false
        }),
        "the name service does not start"
    );
    child
}

/// It answers the greeting when it has read in what it keeps.
fn is_serving(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut answer = [0; 1];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == [1]
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
