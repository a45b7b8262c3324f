//! The tracer: open, configure, load, attach, read, detach. The only place for unsafe and libbpf.
#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    collections::HashSet,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
    rc::Rc,
    sync::Mutex,
};

use anyhow::{Context, Result};
use libbpf_rs::{
    Link, MapCore, MapFlags, OpenObject, PrintLevel, RingBuffer, RingBufferBuilder,
    skel::{OpenSkel, SkelBuilder},
};

use crate::{
    event::ImageId,
    filter::Program,
    plan::{AtStart, Events, Probes},
    session::{Batch, Lost, Source},
};

#[allow(missing_docs, dead_code, clippy::all, clippy::pedantic)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/netmon.skel.rs"));
}

#[cfg(feature = "test-programs")]
pub mod classifier;
mod filter;
#[cfg(test)]
mod floor;
mod follow;
mod iterate;
pub mod layout;
mod probes;
mod refusal;

use iterate::Iterators;
use layout::{netmon_existing as existing, netmon_lost as Cause};
pub use probes::ProbeSet;
use refusal::Rejection;
pub use refusal::{is_denied, refuses_trampolines};
use skel::{NetmonSkel, NetmonSkelBuilder, types};

/// Records taken from the ring at a time: bounds memory, and how late a stop can be noticed.
const BATCH: usize = 4096;

/// What the kernel side is told before it is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// Which connections to report.
    pub filter: &'a Program,
    /// Which events to send.
    pub events: Events,
    /// Watch DNS answers.
    pub dns: bool,
    /// What to do with the sockets that exist.
    pub at_start: AtStart,
    /// Bytes of the ring; a power of two.
    pub ring_size: u32,
    /// Which probe sets to try.
    pub probes: Probes,
    /// Let libbpf tell what it does, and the kernel's verifier its figures, into the log.
    pub verbose: bool,
    /// The programs that need CAP_NET_ADMIN may be loaded.
    pub net_admin: bool,
    /// Trace only what this process starts.
    pub follow: bool,
}

/// Room for the two attempts at loading, one for each probe set. Belongs to `main`.
pub type Storage = [MaybeUninit<OpenObject>; 2];

/// The loaded and attached programs.
pub struct Tracer<'obj> {
    skel: NetmonSkel<'obj>,
    links: Vec<Link>,
    ring: RingBuffer<'obj>,
    batch: Rc<RefCell<Batch>>,
    set: ProbeSet,
    notes: Vec<String>,
    iterators: Option<Iterators>,
}

/// libbpf's own words since the last call, for `--verbose`.
static LOG: Mutex<String> = Mutex::new(String::new());

fn keep_log(_: PrintLevel, text: String) {
    if let Ok(mut log) = LOG.lock() {
        log.push_str(&text);
    }
}

/// Take what libbpf has said so far.
pub fn take_log() -> String {
    LOG.lock().map(|mut log| std::mem::take(&mut *log)).unwrap_or_default()
}

impl<'obj> Tracer<'obj> {
    /// Load and attach. With [`Probes::Auto`] the trampoline set is tried first, and the
    /// tracepoint set where the kernel refuses it.
    ///
    /// # Errors
    /// The error of the last attempt, with its errno as the root cause.
    pub fn start(config: Config<'_>, storage: &'obj mut Storage) -> Result<Self> {
        let level = if config.verbose { PrintLevel::Debug } else { PrintLevel::Warn };
        libbpf_rs::set_print(Some((level, keep_log)));
        let [first, second] = storage;
        match config.probes {
            Probes::Trampoline => Self::start_set(config, ProbeSet::Trampoline, first),
            Probes::Tracepoint => Self::start_set(config, ProbeSet::Tracepoint, first),
            Probes::Auto if probes::are_trampolines_forbidden() => {
                Self::start_set(config, ProbeSet::Tracepoint, first)
            }
            Probes::Auto => match Self::start_set(config, ProbeSet::Trampoline, first) {
                Err(error) if refuses_trampolines(&error) => {
                    let mut tracer = Self::start_set(config, ProbeSet::Tracepoint, second)?;
                    tracer.notes.extend(error.is::<Rejection>().then(|| error.to_string()));
                    Ok(tracer)
                }
                result => result,
            },
        }
    }

    fn start_set(
        config: Config<'_>,
        set: ProbeSet,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self> {
        let mut open = NetmonSkelBuilder::default().open(storage).context("open the BPF object")?;
        let rodata = open.maps.rodata_data.as_deref_mut().context("the object has no rodata")?;
        rodata.config.want = config.events.bits();
        rodata.config.wake_mask = config.ring_size / 8 - 1;
        rodata.config.follow = u32::from(config.follow);
        rodata.config.existing = match config.at_start {
            AtStart::Ignore => 0,
            AtStart::Learn => existing::NETMON_EXISTING_TRACK.0,
            AtStart::Print => existing::NETMON_EXISTING_TRACK.0 | existing::NETMON_EXISTING_REPORT.0,
            AtStart::PrintOnly => existing::NETMON_EXISTING_REPORT.0,
        };
        rodata.config.tracepoints = u32::from(set == ProbeSet::Tracepoint);
        open.maps.ring.set_max_entries(config.ring_size).context("size the ring")?;
        let values = filter::configure(config.filter, &mut open.maps)?;
        let mut notes = Vec::new();
        probes::choose(&mut open.progs, set, config, &mut notes);
        let tracepoints = set == ProbeSet::Tracepoint;
        open.maps.attempts.set_autocreate(tracepoints)?;
        open.maps.connecting.set_autocreate(tracepoints && config.events.has_requests())?;
        open.maps.followed.set_autocreate(config.follow)?;
        open.maps.waiting.set_autocreate(config.events.has_states())?;
        if config.verbose {
            const BPF_LOG_STATS: u32 = 4;
            open.open_object_mut().progs_mut().for_each(|mut prog| prog.set_log_level(BPF_LOG_STATS));
        }

        let loaded =
            open.load().map_err(|error| match LOG.lock().ok().and_then(|log| Rejection::find(&log)) {
                Some(rejection) => rejection.into(),
                None => anyhow::Error::from(error).context("load the BPF programs"),
            });
        let mut skel = loaded?;
        values.fill(&skel.maps)?;
        let batch = Rc::new(RefCell::new(Batch::default()));
        let mut builder = RingBufferBuilder::new();
        let filled = Rc::clone(&batch);
        // Runs below C: it copies, and whatever can fail is done later.
        builder
            .add(&skel.maps.ring, move |record| {
                filled.borrow_mut().push(record);
                0
            })
            .context("map the ring")?;
        let ring = builder.build().context("map the ring")?;
        let links = match config.at_start {
            AtStart::PrintOnly => Default::default(),
            _ => probes::attach(&skel.progs, set, config.net_admin, &mut notes)?,
        };
        if config.follow {
            follow::mark_self(&skel.maps.followed)?;
        }
        let iterators = match config.at_start {
            AtStart::Ignore => None,
            _ => Some(Iterators::new(&skel.progs, config)?),
        };
        tell(&mut skel, |bss| &mut bss.existing_running, iterators.is_some().into());
        tell(&mut skel, |bss| &mut bss.started, 1);
        Ok(Tracer { skel, links, ring, batch, set, notes, iterators })
    }

    /// The probe set in use.
    pub fn probe_set(&self) -> ProbeSet {
        self.set
    }

    /// What could not be attached, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Tell the probes something new: the value of one of their variables.
fn tell(skel: &mut NetmonSkel<'_>, variable: fn(&mut types::bss) -> &mut u32, value: u32) {
    if let Some(bss) = skel.maps.bss_data.as_deref_mut() {
        // SAFETY: it is a valid, aligned integer in a shared mapping.
        unsafe { std::ptr::from_mut(variable(bss)).write_volatile(value) };
    }
}

/// Ask for more of the processor than those we watch, as auditd does: a busy host must not fill
/// the ring. It is a favour, and no error where it is refused.
pub fn raise_priority() {
    const NICE: libc::c_int = -15;
    // SAFETY: no memory is involved; 0 is this process.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

impl Tracer<'_> {
    /// Have the kernel side look for entries whose sockets have gone: it counts them as lost.
    fn count_orphans(&self) {
        let prog = &self.skel.progs.on_orphan;
        let iterated = prog.attach_iter(self.skel.maps.conns.as_fd()).map_err(drop).and_then(|link| {
            libbpf_rs::Iter::new(&link)
                .map_err(drop)
                .map(|mut all| std::io::copy(&mut all, &mut std::io::sink()))
        });
        // Without it they are not counted, and nothing else suffers.
        drop(iterated);
    }
}

impl Source for Tracer<'_> {
    fn ready_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor belongs to `self.ring`, which outlives the borrow of self.
        unsafe { BorrowedFd::borrow_raw(self.ring.epoll_fd()) }
    }

    fn read(&mut self, into: &mut Batch) -> Result<()> {
        let outcome = self.ring.consume_raw_n(BATCH);
        if outcome < 0 {
            return Err(std::io::Error::from_raw_os_error(-outcome)).context("read the ring");
        }
        into.swap(&mut self.batch.borrow_mut());
        Ok(())
    }

    fn survey(&mut self) -> Result<bool> {
        if let Some(iterators) = &mut self.iterators {
            if iterators.read()? {
                return Ok(true);
            }
            self.notes.extend(iterators.note());
        }
        self.iterators = None;
        tell(&mut self.skel, |bss| &mut bss.existing_running, 0);
        Ok(false)
    }

    fn lost(&self) -> Lost {
        let lost = self.skel.maps.bss_data.as_deref().map(|bss| bss.lost).unwrap_or_default();
        let of = |cause: Cause| lost[cause.0 as usize];
        Lost {
            ring: of(Cause::NETMON_LOST_RING),
            table: of(Cause::NETMON_LOST_TABLE),
            process: of(Cause::NETMON_LOST_PROCESS),
            follow: of(Cause::NETMON_LOST_FOLLOW),
            answers: of(Cause::NETMON_LOST_DNS),
            missed: of(Cause::NETMON_LOST_SKIPPED),
            ..Lost::default()
        }
    }

    fn images_in_use(&mut self) -> Result<HashSet<ImageId>> {
        if let Some(bss) = self.skel.maps.bss_data.as_deref_mut() {
            // SAFETY: `epoch` is a valid, aligned integer in a shared mapping.
            unsafe { std::ptr::from_mut(&mut bss.epoch).write_volatile(bss.epoch.wrapping_add(1)) };
        }
        wait_for_programs();
        let mut used = HashSet::new();
        for key in self.skel.maps.conns.keys() {
            let Some(conn) = self.skel.maps.conns.lookup(&key, MapFlags::ANY)? else { continue };
            let conn =
                layout::conn_of(&conn).context("an entry of the connection table has an unknown size")?;
            used.extend([conn.image, conn.closer].into_iter().filter(|&id| id != 0).map(ImageId));
        }
        Ok(used)
    }

    fn has_open(&self) -> bool {
        self.skel.maps.conns.keys().any(|key| {
            let entry = self.skel.maps.conns.lookup(&key, MapFlags::ANY).ok().flatten();
            entry
                .and_then(|bytes| layout::conn_of(&bytes))
                .is_some_and(|conn| conn.image != 0 || conn.pid != 0)
        })
    }

    fn detach(&mut self) {
        // What has closed without our having seen it, counted while the rest still counts.
        self.count_orphans();
        // Last in, first out: no story may start that the rest would not finish.
        while let Some(link) = self.links.pop() {
            drop(link);
        }
        // A record that is still being filled hides those behind it from the reader.
        wait_for_programs();
    }
}

/// Wait until every program that runs now has ended: what they have seen of the epoch before is
/// then in the connection table. MEMBARRIER_CMD_GLOBAL is a grace period of RCU, under which
/// programs run; where it is refused (CPUs without a tick) a moment has to do.
fn wait_for_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the call takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) } < 0 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
