//! A browser without a window that looks at a page and says what it saw: the document as scripts have left it, what they
//! complained of, what was asked of whom, and a picture.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::relay::{Outcome, PATIENCE};

/// Time that passes on the page before it is looked at. It is the page's own time, which runs as fast as its work is done.
const PAGE_TIME: &str = "--virtual-time-budget=4000";

/// Chromium, as `tests/tools/install` puts it there.
pub(crate) struct Browser {
    program: PathBuf,
}

/// What was seen.
pub(crate) struct Seen {
    /// The document, after its scripts.
    pub(crate) dom: String,
    /// Lines of the console, and violations of the policy.
    pub(crate) console: Vec<String>,
    /// Addresses that the page asked for.
    pub(crate) asked: Vec<String>,
    /// The picture; it vanishes with this.
    pub(crate) picture: PathBuf,
    _dir: TempDir,
}

impl Browser {
    /// `None`, and a loud line, if it is not installed.
    pub(crate) fn find() -> Option<Self> {
        let exe = std::env::current_exe().expect("a test has an executable");
        let target = exe.ancestors().nth(3).expect("it lies in target/PROFILE/deps");
        let program = target.join("tools/chromium/run");
        if program.is_file() {
            return Some(Self { program });
        }
        // Where the tests have to be whole, a browser that is missing is a failure.
        assert!(std::env::var_os("REQUIRE_TOOLS").is_none(), "{} is missing", program.display());
        eprintln!("SKIPPED: needs {}; tests/tools/install puts it there", program.display());
        None
    }

    /// Looks at a page in a window of that size, with the colours of a dark room or of a light one.
    #[expect(clippy::disallowed_methods, reason = "a real process is waited for in real time")]
    pub(crate) fn look(&self, url: &str, (width, height): (u32, u32), dark: bool) -> Outcome<Seen> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str| dir.path().join(name);
        let browser = self
            .command(url, dir.path(), (width, height), dark)
            .stdin(Stdio::null())
            .stdout(File::create(file("dom"))?)
            .stderr(File::create(file("said"))?)
            .spawn()?;
        let mut browser = Ended(browser);
        let began = Instant::now();
        while browser.0.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE * 2 {
                return Err("the browser does not come to an end".into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        let said = fs::read_to_string(file("said"))?;
        let console = said.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
        let asked = asked_by_the_page(&fs::read_to_string(file("net"))?, url);
        let (dom, picture) = (fs::read_to_string(file("dom"))?, file("picture.png"));
        Ok(Seen { dom, console, asked, picture, _dir: dir })
    }

    fn command(&self, url: &str, dir: &Path, (width, height): (u32, u32), dark: bool) -> Command {
        let mut command = Command::new(&self.program);
        // Its sandbox needs rights that a container does not give, and it loads our own page alone.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        // What the browser itself would like to ask its maker goes nowhere.
        command.arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1");
        command.args(["--hide-scrollbars", "--enable-logging=stderr", "--dump-dom", PAGE_TIME]);
        // 0 is dark, 1 is light.
        command.arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)));
        command.arg(format!("--window-size={width},{height}"));
        command.arg(format!("--user-data-dir={}", dir.join("profile").display()));
        command.arg(format!("--log-net-log={}", dir.join("net").display()));
        command.arg(format!("--screenshot={}", dir.join("picture.png").display()));
        command.arg(url);
        command
    }
}

/// A process that is killed when nobody waits for it any more.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The addresses in the browser's own record of its network that the page, or the user for it, asked for. The record has an
/// event in each line.
fn asked_by_the_page(record: &str, url: &str) -> Vec<String> {
    let text = |line: &str, name: &str| -> Option<String> {
        let (_, rest) = line.split_once(&format!("\"{name}\":\""))?;
        Some(rest.split('"').next()?.to_owned())
    };
    let origin = url.trim_end_matches('/');
    let by_page = |line: &&str| text(line, "initiator").is_some_and(|it| it == origin);
    let mut asked: Vec<String> =
        record.lines().filter(by_page).filter_map(|line| text(line, "url")).collect();
    asked.sort();
    asked.dedup();
    asked
}

impl Seen {
    /// The text of the first element with that attribute, without what is inside of elements in it.
    pub(crate) fn text(&self, attribute: &str) -> Outcome<&str> {
        let (_, rest) =
            self.dom.split_once(attribute).ok_or_else(|| format!("no {attribute}:\n{}", self.dom))?;
        let (_, rest) = rest.split_once('>').ok_or("an element ends")?;
        Ok(rest.split('<').next().unwrap_or_default())
    }

    /// Whether the element with that attribute is hidden.
    pub(crate) fn is_hidden(&self, attribute: &str) -> Outcome<bool> {
        let (_, rest) = self.dom.split_once(attribute).ok_or_else(|| format!("no {attribute}"))?;
        Ok(rest.split('>').next().is_some_and(|tag| tag.contains(" hidden")))
    }
}

#[test]
fn a_request_of_the_page_to_somebody_else_is_seen_and_one_of_the_browser_is_not_the_page_s() {
    let record = r#"{"params":{"initiator":"http://127.0.0.1:1","method":"GET","url":"http://127.0.0.1:1/page.js"},"type":2},
{"params":{"initiator":"http://127.0.0.1:1","method":"GET","url":"https://elsewhere.example/x"},"type":2},
{"params":{"initiator":"not an origin","method":"GET","url":"https://maker.example/update"},"type":2}"#;
    let asked = asked_by_the_page(record, "http://127.0.0.1:1/");
    assert_eq!(asked, ["http://127.0.0.1:1/page.js", "https://elsewhere.example/x"]);
}
