//! Nobody dies on suspicion of the observer: virtual time, and the time in which nobody is declared gone.
//!
//! A relay that was stopped (a frozen VM, a debugger, a starved host) wakes up to a clock that has jumped, and to
//! requests that waited all the while. So a dedicated thread ticks; what a gap between two ticks has above
//! [`PAUSE`] is left out of virtual time, and every pause, start or lost log holds expiry until the relay has
//! listened again.
//!
//! All of it is read without a lock, by any thread at any moment, and in particular between the end of a pause and
//! the first tick after it: virtual time never runs more than [`PAUSE`] ahead of the last tick, and as soon as it
//! stands at that ceiling the relay counts as paused.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{Millis, Timestamp};

/// A gap between two ticks above this is a pause of the relay. Ticks are due every 20 ms.
pub const PAUSE: Millis = Millis(250);

/// Why nobody is declared gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldReason {
    /// The relay has just started.
    Started,
    /// The relay itself stood still.
    Paused,
    /// The log could not be reached.
    LogLost,
}

/// Tells one hold from the next, so that a report that was begun before a pause does not count after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldNumber(u64);

const REQUESTS: u64 = 0b01;
const LOG: u64 = 0b10;
const REASON_SHIFT: u32 = 2;
const NUMBER_SHIFT: u32 = 4;

/// A moment in both times, in milliseconds since the start.
#[derive(Clone, Copy, Debug)]
struct Tick {
    monotonic: u64,
    virtual_time: u64,
}

impl Tick {
    /// The furthest that virtual time may run before the next tick.
    fn ceiling(self) -> u64 {
        self.virtual_time + PAUSE.0
    }
}

#[derive(Debug, Default)]
struct TickCell {
    monotonic: AtomicU64,
    virtual_time: AtomicU64,
}

/// Virtual time and the expiry hold of one relay. One thread calls [`Self::tick`]; all others may read.
#[derive(Debug)]
pub struct VirtualClock {
    origin: Duration,
    awake_lease: Millis,
    /// The newest tick is the one at `generation % 2`; the next one is written into the other, so that a reader
    /// never waits for a ticking thread that was stopped half-way.
    ticks: [TickCell; 2],
    generation: AtomicU64,
    /// The current hold: its number, its reason, and what it still waits for.
    hold: AtomicU64,
    held_until: AtomicU64,
}

impl VirtualClock {
    /// A relay that starts now. `awake_lease` is the longest one of all groups.
    pub fn starting(monotonic: Duration, awake_lease: Millis) -> Self {
        let clock = Self {
            origin: monotonic,
            awake_lease,
            ticks: [TickCell::default(), TickCell::default()],
            generation: AtomicU64::new(0),
            hold: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
        };
        clock.begin_hold(HoldReason::Started, Timestamp(0));
        clock
    }

    /// The ticking thread was here. Answers how long the relay stood still, if it did.
    pub fn tick(&self, monotonic: Duration) -> Option<Millis> {
        let last = self.last_tick();
        let monotonic = self.elapsed(monotonic).max(last.monotonic);
        let gap = monotonic - last.monotonic;
        let virtual_time = last.virtual_time + gap.min(PAUSE.0);
        let paused = gap > PAUSE.0;
        if paused {
            // Before the tick is shown: whoever sees time go on must also see the hold.
            self.begin_hold(HoldReason::Paused, Timestamp(virtual_time));
        }
        self.show(Tick { monotonic, virtual_time });
        paused.then_some(Millis(gap))
    }

    /// Virtual time. Not before the last tick either, so that a monotonic time read before a pause and handed in
    /// after it does not lead back into the past.
    pub fn now(&self, monotonic: Duration) -> Timestamp {
        let last = self.last_tick();
        let since = self.elapsed(monotonic).saturating_sub(last.monotonic);
        Timestamp(last.virtual_time + since.min(PAUSE.0))
    }

    /// Why nobody may be declared gone at this moment, if so.
    pub fn expiry_held(&self, now: Timestamp) -> Option<HoldReason> {
        if now.0 >= self.last_tick().ceiling() {
            return Some(HoldReason::Paused);
        }
        let hold = self.hold.load(Ordering::Acquire);
        let waits = hold & (REQUESTS | LOG) != 0 || now.0 < self.held_until.load(Ordering::Acquire);
        waits.then_some(match (hold >> REASON_SHIFT) & 0b11 {
            0 => HoldReason::Started,
            1 => HoldReason::Paused,
            _ => HoldReason::LogLost,
        })
    }

    /// The newest hold, over or not. Taken before the work that [`Self::drained`] or [`Self::log_read_to_head`]
    /// reports is begun.
    pub fn hold(&self) -> HoldNumber {
        HoldNumber(self.hold.load(Ordering::Acquire) >> NUMBER_SHIFT)
    }

    /// The requests that had been waiting when this hold was taken note of are handled.
    pub fn drained(&self, hold: HoldNumber) {
        self.reported(hold, REQUESTS);
    }

    /// The log was read up to what was its head after this hold was taken note of.
    pub fn log_read_to_head(&self, hold: HoldNumber) {
        self.reported(hold, LOG);
    }

    /// The log cannot be reached: what other relays have heard is not known here.
    pub fn log_lost(&self, now: Timestamp) {
        self.begin_hold(HoldReason::LogLost, now);
    }

    /// All the time that pauses have taken so far.
    pub fn lost(&self) -> Millis {
        let last = self.last_tick();
        Millis(last.monotonic - last.virtual_time)
    }

    fn last_tick(&self) -> Tick {
        loop {
            let generation = self.generation.load(Ordering::Acquire);
            let cell = &self.ticks[usize::from(generation % 2 == 1)];
            let monotonic = cell.monotonic.load(Ordering::Acquire);
            let virtual_time = cell.virtual_time.load(Ordering::Acquire);
            // This cell is written again only after the generation went on, and a value of that writing, once
            // read, shows the new generation.
            if self.generation.load(Ordering::Acquire) == generation {
                return Tick { monotonic, virtual_time };
            }
        }
    }

    fn show(&self, tick: Tick) {
        let next = self.generation.load(Ordering::Relaxed) + 1;
        let cell = &self.ticks[usize::from(next % 2 == 1)];
        cell.monotonic.store(tick.monotonic, Ordering::Release);
        cell.virtual_time.store(tick.virtual_time, Ordering::Release);
        self.generation.store(next, Ordering::Release);
    }

    fn elapsed(&self, monotonic: Duration) -> u64 {
        Millis::from(monotonic.saturating_sub(self.origin)).0
    }

    fn begin_hold(&self, reason: HoldReason, now: Timestamp) {
        let reason = match reason {
            HoldReason::Started => 0,
            HoldReason::Paused => 1,
            HoldReason::LogLost => 2,
        };
        self.held_until.fetch_max((now + self.awake_lease).0, Ordering::AcqRel);
        let next = |hold| {
            Some((((hold >> NUMBER_SHIFT) + 1) << NUMBER_SHIFT) | (reason << REASON_SHIFT) | REQUESTS | LOG)
        };
        // The closure always answers, so this cannot fail.
        let _ = self.hold.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
    }

    fn reported(&self, number: HoldNumber, what: u64) {
        let clear = |hold| (hold >> NUMBER_SHIFT == number.0).then_some(hold & !what);
        // A report of an older hold says nothing about this one, and is dropped.
        let _ = self.hold.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Millis = Millis(3_000);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A relay whose first hold is over, at monotonic time 13,000 and virtual time 3,000.
    fn settled() -> VirtualClock {
        let clock = VirtualClock::starting(ms(10_000), LEASE);
        tick_through(&clock, 10_000, 13_000);
        report(&clock);
        clock
    }

    fn tick_through(clock: &VirtualClock, from: u64, to: u64) {
        for at in (from..=to).step_by(20) {
            assert_eq!(clock.tick(ms(at)), None);
        }
    }

    fn report(clock: &VirtualClock) {
        clock.drained(clock.hold());
        clock.log_read_to_head(clock.hold());
    }

    #[test]
    fn a_start_holds_expiry_until_the_relay_has_listened() {
        let clock = VirtualClock::starting(ms(10_000), LEASE);
        tick_through(&clock, 10_000, 13_000);
        let now = clock.now(ms(13_000));
        assert_eq!(now, Timestamp(3_000));
        assert_eq!(clock.expiry_held(now), Some(HoldReason::Started));
        clock.drained(clock.hold());
        assert_eq!(clock.expiry_held(now), Some(HoldReason::Started), "the log is still missing");
        clock.log_read_to_head(clock.hold());
        assert_eq!(clock.expiry_held(Timestamp(2_999)), Some(HoldReason::Started), "not yet one awake lease");
        assert_eq!(clock.expiry_held(now), None);
    }

    #[test]
    fn between_the_end_of_a_pause_and_the_first_tick_no_time_has_passed_and_nobody_is_expired() {
        let clock = settled();
        for at in [13_249, 13_250, 14_000, 73_000] {
            let now = clock.now(ms(at));
            assert!(now <= Timestamp(3_250), "{now:?} at {at}");
            let held = clock.expiry_held(now);
            assert_eq!(held, (at >= 13_250).then_some(HoldReason::Paused), "at {at}");
        }
        assert_eq!(clock.tick(ms(73_000)), Some(Millis(60_000)));
        assert_eq!(clock.now(ms(73_000)), Timestamp(3_250), "virtual time goes on where readers left it");
        assert_eq!(clock.now(ms(12_990)), Timestamp(3_250), "a time read before the pause leads nowhere");
        assert_eq!(clock.now(ms(73_010)), Timestamp(3_260));
        assert_eq!(clock.lost(), Millis(59_750));
    }

    #[test]
    fn a_pause_holds_expiry_for_one_awake_lease_and_until_both_reports() {
        let clock = settled();
        let before = clock.hold();
        clock.tick(ms(20_000));
        report(&clock);
        clock.tick(ms(20_020));
        assert_eq!(clock.expiry_held(clock.now(ms(20_020))), Some(HoldReason::Paused));
        tick_through(&clock, 20_040, 22_980);
        assert_eq!(clock.expiry_held(clock.now(ms(22_999))), Some(HoldReason::Paused));
        assert_eq!(clock.expiry_held(clock.now(ms(23_000))), None);
        clock.tick(ms(30_000));
        clock.drained(before);
        clock.log_read_to_head(before);
        tick_through(&clock, 30_000, 40_000);
        let held = clock.expiry_held(clock.now(ms(40_000)));
        assert_eq!(held, Some(HoldReason::Paused), "reports of an older hold do not count");
    }

    #[test]
    fn a_gap_of_250_ms_is_no_pause() {
        let clock = settled();
        assert_eq!(clock.tick(ms(13_250)), None);
        assert_eq!(clock.now(ms(13_250)), Timestamp(3_250));
        assert_eq!(clock.expiry_held(clock.now(ms(13_250))), None);
        assert_eq!(clock.tick(ms(13_501)), Some(Millis(251)));
        assert_eq!(clock.now(ms(13_501)), Timestamp(3_500));
    }

    #[test]
    fn a_lost_log_holds_expiry_until_it_was_read_to_its_head() {
        let clock = settled();
        clock.log_lost(clock.now(ms(13_000)));
        clock.drained(clock.hold());
        tick_through(&clock, 13_000, 20_000);
        let now = clock.now(ms(20_000));
        assert_eq!(clock.expiry_held(now), Some(HoldReason::LogLost));
        clock.log_read_to_head(clock.hold());
        assert_eq!(clock.expiry_held(now), None);
    }

    #[test]
    fn virtual_time_never_runs_back_whatever_other_threads_read() {
        let clock = VirtualClock::starting(ms(0), LEASE);
        let at = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut newest = Timestamp(0);
                    while at.load(Ordering::Acquire) < 10_000_000 {
                        let now = clock.now(ms(at.load(Ordering::Acquire)));
                        assert!(now >= newest, "{now:?} after {newest:?}");
                        newest = now;
                    }
                });
            }
            let mut random = fastrand::Rng::with_seed(7);
            while at.load(Ordering::Acquire) < 10_000_000 {
                let step = if random.u8(..) < 8 { random.u64(0..5_000) } else { random.u64(0..100) };
                let next = at.fetch_add(step, Ordering::AcqRel) + step;
                clock.tick(ms(next));
            }
        });
    }
}
