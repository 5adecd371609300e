//! The only reader of the real clocks.
//!
//! A dedicated thread ticks, so that a pause of the whole relay is noticed before anybody acts on the time that passed
//! meanwhile; everything else asks for virtual time, in which pauses do not exist.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tracing::warn;

use crate::liveness::{Millis, Timestamp, guard::VirtualClock};

/// How often the ticking thread looks at the clock.
const TICK: Duration = Duration::from_millis(20);

/// The machine's monotonic clock, for how long work of the relay itself takes. It says nothing about nodes.
#[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
pub fn instant() -> Instant {
    Instant::now()
}

/// Virtual time, and the wall clock for display and for stamps that only clamp.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    guard: Arc<VirtualClock>,
}

impl Clock {
    /// A relay starts now. `awake_lease` is the longest one of all groups.
    pub fn starting(awake_lease: Millis) -> Self {
        Self { started: instant(), guard: Arc::new(VirtualClock::starting(Duration::ZERO, awake_lease)) }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    /// Virtual time.
    pub fn now(&self) -> Timestamp {
        self.guard.now(self.monotonic())
    }

    /// The guard against the relay's own pauses.
    pub fn guard(&self) -> &VirtualClock {
        &self.guard
    }

    /// Milliseconds since 1970 by the wall clock, which decides nothing.
    #[expect(clippy::disallowed_methods, reason = "this file is where the clock is read")]
    pub fn wall_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts the ticking thread; it ends when the returned handle is dropped. `paused` hears of every pause.
    pub fn start_ticking(&self, paused: impl Fn(Duration) + Send + 'static) -> std::io::Result<Ticking> {
        let stop = Arc::new(AtomicBool::new(false));
        let (clock, stopped) = (self.clone(), Arc::clone(&stop));
        thread::Builder::new().name("dormouse-clock".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                if let Some(pause) = clock.guard.tick(clock.monotonic()) {
                    warn!(
                        pause_ms = pause.0,
                        "this relay stood still: nobody is declared gone until it has listened again"
                    );
                    paused(Duration::from_millis(pause.0));
                }
            }
        })?;
        Ok(Ticking { stop })
    }
}

/// Keeps the ticking thread alive.
#[derive(Debug)]
pub struct Ticking {
    stop: Arc<AtomicBool>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
