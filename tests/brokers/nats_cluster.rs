//! Three NATS servers that keep streams together: unprivileged, on loopback, each with a folder of its own.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use dormouse_relay::log::nats::Address;
use serde_json::Value;
use tempfile::TempDir;

use super::nats_server::{Release, free_port, is_serving};

/// Looks at something that is to come, `LOOK` apart: longer than a loaded machine takes.
const LOOKS: u32 = 1_200;
const LOOK: Duration = Duration::from_millis(50);

/// One server of the cluster.
struct Member {
    name: String,
    port: u16,
    route: u16,
    monitor: u16,
    folder: PathBuf,
    child: Option<Child>,
}

/// The servers; they are killed when they are dropped.
pub(crate) struct NatsCluster {
    program: PathBuf,
    dir: TempDir,
    members: Vec<Member>,
}

impl NatsCluster {
    /// Three servers that have found each other and a leader. `None` if the server is not installed.
    pub(crate) fn start(release: Release) -> Option<Self> {
        let program = release.program()?;
        // Another test may take a port between the look and the start.
        for _ in 0..5 {
            let dir = tempfile::tempdir().expect("a folder");
            let members = (1..=3).map(|nth| Member {
                name: format!("server-{nth}"),
                port: free_port(),
                route: free_port(),
                monitor: free_port(),
                folder: dir.path().join(format!("server-{nth}")),
                child: None,
            });
            let mut cluster = Self { program: program.clone(), members: members.collect(), dir };
            if (0..3).all(|nth| cluster.try_run(nth)) {
                cluster.wait("a leader of the servers", |it| {
                    (0..3).all(|nth| it.page(nth, "healthz").is_some_and(|page| page["status"] == "ok"))
                });
                return Some(cluster);
            }
        }
        panic!("{} does not start", program.display());
    }

    /// Starts that server, on its port and folder; answers whether it takes connections.
    fn try_run(&mut self, nth: usize) -> bool {
        let routes: Vec<_> =
            self.members.iter().map(|it| format!("\"nats://127.0.0.1:{}\"", it.route)).collect();
        let said = self.dir.path().join("said");
        let member = &mut self.members[nth];
        let configuration = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor}\"\n\
             jetstream {{ store_dir: \"{store}\", max_mem: 64MB, max_file: 1GB }}\n\
             cluster {{ name: test, listen: \"127.0.0.1:{route}\", routes: [{routes}] }}\n",
            name = member.name,
            port = member.port,
            monitor = member.monitor,
            store = member.folder.join("js").display(),
            route = member.route,
            routes = routes.join(", "),
        );
        fs::create_dir_all(&member.folder).expect("a folder");
        let file = member.folder.join("nats.conf");
        fs::write(&file, configuration).expect("written");
        let said = fs::File::options().create(true).append(true).open(said).expect("a file");
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        let child = member.child.insert(command.spawn().expect("the server starts"));
        for _ in 0..LOOKS {
            if is_serving(member.port) {
                return true;
            }
            if child.try_wait().expect("it is ours").is_some() {
                return false;
            }
            thread::sleep(LOOK);
        }
        false
    }

    /// Starts that server again.
    pub(crate) fn run(&mut self, nth: usize) {
        assert!(self.try_run(nth), "the server does not start again");
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub(crate) fn kill(&mut self, nth: usize) {
        let mut child = self.members[nth].child.take().expect("it runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is gone");
    }

    /// Forgets all that this server has kept, as if its machine were lost. Only while it does not run.
    pub(crate) fn wipe(&self, nth: usize) {
        fs::remove_dir_all(self.members[nth].folder.join("js")).expect("it was there");
    }

    /// The address of a log that all three keep.
    pub(crate) fn address(&self, stream: &str) -> Address {
        let hosts: Vec<_> = self.members.iter().map(|it| format!("127.0.0.1:{}", it.port)).collect();
        let text = format!("nats://{}/{stream}?replicas=3", hosts.join(","));
        text.parse().unwrap_or_else(|rule| panic!("{text} is not {rule}"))
    }

    /// Which server leads that stream; waits until one does.
    pub(crate) fn leader(&self, stream: &str) -> usize {
        let mut leader = None;
        self.wait("a leader of the stream", |it| {
            leader = it.told(stream).and_then(|told| it.named(told["leader"].as_str()?));
            leader.is_some()
        });
        leader.expect("found")
    }

    /// Waits until every server has all of that stream.
    pub(crate) fn wait_until_all_are_current(&self, stream: &str) {
        self.wait("every copy of the stream", |it| {
            let told = it.told(stream).unwrap_or_default();
            let replicas = told["replicas"].as_array();
            // A server that is behind, or away, leaves the one word out or adds the other.
            let is_current = |peer: &Value| peer["current"] == true && peer.get("offline").is_none();
            replicas.is_some_and(|peers| peers.len() == 2 && peers.iter().all(is_current))
        });
    }

    fn named(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|it| it.name == name && it.child.is_some())
    }

    /// What the leader of a stream says of those who keep it. What another server says may be old.
    fn told(&self, stream: &str) -> Option<Value> {
        (0..3).find_map(|nth| {
            let page = self.page(nth, "jsz?acc=$G&streams=true")?;
            let streams = page.pointer("/account_details/0/stream_detail")?.as_array()?.clone();
            let told = streams.into_iter().find(|it| it["name"] == stream)?["cluster"].take();
            (told["leader"] == self.members[nth].name.as_str()).then_some(told)
        })
    }

    /// A page of that server's monitoring port, if it answers one.
    fn page(&self, nth: usize, path: &str) -> Option<Value> {
        let member = self.members.get(nth).filter(|it| it.child.is_some())?;
        let mut stream = TcpStream::connect(("127.0.0.1", member.monitor)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET /{path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn wait(&self, what: &str, mut is_there: impl FnMut(&Self) -> bool) {
        for _ in 0..LOOKS {
            if is_there(self) {
                return;
            }
            thread::sleep(LOOK);
        }
        panic!("{what} does not come: {}", said(self.dir.path()));
    }
}

fn said(dir: &Path) -> String {
    let said = fs::read_to_string(dir.join("said")).unwrap_or_default();
    let lines: Vec<&str> = said.lines().rev().take(40).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}

impl Drop for NatsCluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|it| it.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
