//! `backup` and `restore`: the whole state in one file.

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Read as _, Write},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use dormouse::Relay;
use dormouse_proto::backup::{BackupHeader, Reader};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::{failure::Failure, progress::Progress, screen::Screen, token::hex};

/// The program that keeps a log.
const RELAY: &str = "dormouse-relay";
/// Bytes that are read at once.
const AT_ONCE: usize = 1 << 18;

/// Writes a backup to that file, or to standard output if it is `-`. What is not whole is taken away again.
pub(crate) async fn take(screen: Screen, relay: &Relay, file: &Path) -> Result<(), Failure> {
    if file == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Failure::Usage(
                "a backup is no text: name a file, or send it through a pipe".to_owned(),
            ));
        }
        let header = until_interrupted(receive(relay, &mut io::stdout().lock())).await?;
        eprintln!("{}", words(&header));
        return Ok(());
    }
    let mut part = Part::create(file)?;
    let header = until_interrupted(receive(relay, &mut part.file)).await?;
    part.keep()?;
    screen.show(&format!("{}: {}", file.display(), words(&header)), &object(&header, Some(file)))
}

/// Whoever ends the program leaves nothing that looks like a backup.
async fn until_interrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let interrupted = || Failure::Refused("interrupted: there is no backup".to_owned());
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
        _ = terminated.recv() => Err(interrupted()),
    }
}

/// Hands on what the relay sends, and checks it on the way.
async fn receive(relay: &Relay, out: &mut impl Write) -> Result<BackupHeader, Failure> {
    let (mut progress, mut reader) = (Progress::new("backup"), Reader::default());
    let mut backup = relay.backup().await?;
    while let Some(bytes) = backup.next().await? {
        reader
            .take(&bytes, |_| ())
            .map_err(|wrong| Failure::Refused(format!("what the relay sent: {wrong}")))?;
        out.write_all(&bytes)?;
        progress.reach(reader.bytes(), reader.header().map(|header| header.bytes));
    }
    out.flush()?;
    reader.finish().map_err(|wrong| Failure::Refused(format!("what the relay sent: {wrong}")))
}

/// A file under another name until it is whole. Dropped before that, it is taken away.
struct Part {
    file: File,
    place: PathBuf,
    whole: PathBuf,
    is_kept: bool,
}

impl Part {
    fn create(whole: &Path) -> Result<Self, Failure> {
        refuse_if_there(whole)?;
        let mut place = whole.as_os_str().to_owned();
        place.push(".part");
        let place = PathBuf::from(place);
        let file = OpenOptions::new().write(true).create_new(true).open(&place).map_err(|error| {
            Failure::Refused(match error.kind() {
                io::ErrorKind::AlreadyExists => format!(
                    "{} is there: another backup is being written to it, or was not finished; then remove it",
                    place.display()
                ),
                _ => format!("{}: {error}", place.display()),
            })
        })?;
        Ok(Self { file, place, whole: whole.to_owned(), is_kept: false })
    }

    /// On the disk, under its name, which is on the disk too.
    fn keep(mut self) -> Result<(), Failure> {
        let failed = |error: io::Error| Failure::Refused(format!("{}: {error}", self.place.display()));
        self.file.sync_all().map_err(failed)?;
        refuse_if_there(&self.whole)?;
        fs::rename(&self.place, &self.whole).map_err(failed)?;
        self.is_kept = true;
        let folder = self.whole.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            // It does not look like a backup, and says so when it is read.
            let _ = fs::remove_file(&self.place);
        }
    }
}

fn refuse_if_there(file: &Path) -> Result<(), Failure> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(Failure::Refused(format!("{} is there already: it was left as it is", file.display())));
    }
    Ok(())
}

/// Reads a file to its end, and says what is in it.
pub(crate) fn check(screen: Screen, file: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::Refused(format!("{}: {error}", file.display()));
    let mut content = File::open(file).map_err(|error| failed(&error))?;
    let total = content.metadata().ok().map(|it| it.len());
    let (mut progress, mut reader) = (Progress::new("checking"), Reader::default());
    let (mut buffer, mut done) = (vec![0; AT_ONCE], 0);
    loop {
        let read = content.read(&mut buffer).map_err(|error| failed(&error))?;
        if read == 0 {
            break;
        }
        reader.take(&buffer[..read], |_| ()).map_err(|wrong| failed(&wrong))?;
        done += read as u64;
        progress.reach(done, total);
    }
    let header = reader.finish().map_err(|wrong| failed(&wrong))?;
    screen.show(&format!("{} is whole: {}", file.display(), words(&header)), &object(&header, Some(file)))
}

/// Hands the file to the program that keeps the log: the one beside this one, or the one that is found.
pub(crate) fn restore(file: &Path) -> Result<(), Failure> {
    let beside = env::current_exe().ok().map(|it| it.with_file_name(RELAY)).filter(|it| it.is_file());
    let program = beside.unwrap_or_else(|| PathBuf::from(RELAY));
    let error = Command::new(&program).arg("restore").arg(file).exec();
    Err(Failure::Usage(format!(
        "{} is what restores, with the settings of the log, and it cannot be run here ({error}): run `{RELAY} restore {}` \
         where the relay will run",
        program.display(),
        file.display()
    )))
}

fn words(header: &BackupHeader) -> String {
    let BackupHeader { revision, rows, members, namespaces, bytes, .. } = header;
    format!("revision {revision}, {rows} rows, {members} members, {namespaces} namespaces, {bytes} bytes")
}

fn object(header: &BackupHeader, file: Option<&Path>) -> Value {
    let BackupHeader {
        log_id,
        broker,
        relay_version,
        revision,
        taken_at_ms,
        namespaces,
        rows,
        members,
        bytes,
        hash,
        ..
    } = header;
    json!({
        "file": file.map(|it| it.display().to_string()),
        "revision": revision,
        "rows": rows,
        "members": members,
        "namespaces": namespaces,
        "bytes": bytes,
        "state_hash": hex(hash),
        "log_id": hex(log_id),
        "broker": broker,
        "relay_version": relay_version,
        "taken_at_ms": taken_at_ms,
    })
}
