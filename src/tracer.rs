//! The tracer: open, configure, load, attach, read, detach. The only module with unsafe code and libbpf.
#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use anyhow::{Context, Result};
use libbpf_rs::{
    MapCore, MapFlags, OpenObject, PrintLevel, RingBuffer, RingBufferBuilder,
    skel::{OpenSkel, SkelBuilder},
};

use crate::{
    cli::{
        EventName,
        plan::{AtStart, Probes},
    },
    event::{ImageId, Process},
    host,
    source::{Batch, Lost, Source},
};

mod config;
mod counters;
mod filter_maps;
#[cfg(feature = "test-programs")]
pub mod filter_test_run;
mod follow;
mod images;
mod iterators;
mod kernel_types;
mod large_map;
pub mod layout;
pub mod load_error;
mod log;
mod memory;
#[cfg(test)]
mod min_kernel_tests;
#[cfg(feature = "test-programs")]
pub mod others;
mod parallel;
mod priority;
mod programs;
mod skel;
pub mod wire;

pub use config::TracerConfig;
use images::Images;
use iterators::Iterators;
use kernel_types::KernelTypes;
use large_map::LargeMap;
use layout::netmon_existing as existing;
use load_error::{Rejection, refuses_trampolines};
pub use log::take_log;
use memory::limit_heap;
pub use memory::release_memory;
use parallel::Loaded;
pub use priority::raise_priority;
pub use programs::ProbeSet;
use skel::{NetmonSkel, types};

/// Records read from the ring at a time: limits memory, and the delay in noticing a stop.
const BATCH: usize = 1024;

/// Memory for two attempts at loading, one per probe set. Owned by `main`.
pub type Storage = [MaybeUninit<OpenObject>; 2];

/// The loaded and attached programs.
pub struct Tracer<'obj> {
    skel: NetmonSkel<'obj>,
    loaded: Vec<Loaded>,
    links: Vec<OwnedFd>,
    ring: RingBuffer<'obj>,
    batch: Rc<RefCell<Batch>>,
    set: ProbeSet,
    notes: Vec<String>,
    iterators: Option<Iterators>,
    orphans: Option<File>,
    /// Connections whose accept and close were both missed.
    skipped_accepts: u64,
    events_of_accepted: u64,
}

impl<'obj> Tracer<'obj> {
    /// Loads and attaches the programs. With [`Probes::Auto`] the trampoline set is tried first, then the tracepoint
    /// set if the kernel refuses it.
    ///
    /// # Errors
    /// The error of the last attempt, with its errno as the root cause.
    pub fn start(config: TracerConfig<'_>, storage: &'obj mut Storage) -> Result<Self> {
        limit_heap();
        let level = if config.verbose { PrintLevel::Debug } else { PrintLevel::Warn };
        libbpf_rs::set_print(Some((level, log::keep_log)));
        let [first, second] = storage;
        match config.probes {
            Probes::Trampoline => Self::start_set(config, ProbeSet::Trampoline, first),
            Probes::Tracepoint => Self::start_set(config, ProbeSet::Tracepoint, first),
            Probes::Auto if programs::are_trampolines_forbidden() => {
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
        config: TracerConfig<'_>,
        set: ProbeSet,
        storage: &'obj mut MaybeUninit<OpenObject>,
    ) -> Result<Self> {
        let types = KernelTypes::new()?;
        let mut builder = skel::builder(programs::is_plain(config));
        builder.obj_builder.btf_custom_path(types.path())?;
        let mut open = builder.open(storage).context("open the BPF object")?;
        let mut notes = Vec::new();
        programs::choose(&mut open.progs, set, config, &mut notes);
        let tracepoints = set == ProbeSet::Tracepoint;
        let rodata = open.maps.rodata_data.as_deref_mut().context("the object has no rodata")?;
        rodata.want = programs::want_bits(config.events);
        rodata.config.states = programs::states_to_handle(rodata.want, set);
        rodata.config.wake_mask = config.ring_size / 8 - 1;
        rodata.follow = u32::from(config.follow);
        rodata.config.start = host::boot_time().0;
        rodata.config.existing = match config.at_start {
            AtStart::Ignore => 0,
            AtStart::Learn => existing::NETMON_EXISTING_TRACK.0,
            AtStart::Print => existing::NETMON_EXISTING_TRACK.0 | existing::NETMON_EXISTING_REPORT.0,
            AtStart::PrintOnly => existing::NETMON_EXISTING_REPORT.0,
        };
        rodata.config.tracepoints = u32::from(tracepoints);
        rodata.config.call_twice = u32::from(open.progs.on_sys_exit_second.autoload());
        open.maps.ring.set_max_entries(config.ring_size).context("set the size of the ring")?;
        if config.at_start == AtStart::PrintOnly || !config.events.has_tracked() {
            open.maps.conns.set_max_entries(1).context("set the size of the hash table")?;
        }
        let large = [LargeMap::take(&mut open.maps.ring)?, LargeMap::take(&mut open.maps.conns)?];
        let values = filter_maps::configure(config.filter, &mut open.maps)?;
        open.maps.attempts.set_autocreate(tracepoints)?;
        open.maps.connecting.set_autocreate(tracepoints && config.events.has_requests())?;
        open.maps.followed.set_autocreate(config.follow)?;
        open.maps.waiting.set_autocreate(config.events.has_states())?;
        #[cfg(feature = "test-programs")]
        open.maps.test_listeners.set_autocreate(false)?;
        if config.verbose {
            const BPF_LOG_STATS: u32 = 4;
            open.open_object_mut().progs_mut().for_each(|mut prog| prog.set_log_level(BPF_LOG_STATS));
        }

        // Only libbpf logs what the verifier says.
        let heavy = if config.verbose { |_: &OsStr| false } else { programs::is_heavy };
        let (mut skel, loaded) = parallel::load(open, types, &large, heavy).map_err(|error| {
            match log::peek_log(Rejection::find) {
                Some(rejection) => rejection.into(),
                None => error.context("load the BPF programs"),
            }
        })?;
        values.fill(&skel.maps)?;
        // The peak is after this, with the ring.
        release_memory();
        let batch = Rc::new(RefCell::new(Batch::default()));
        let mut builder = RingBufferBuilder::new();
        let filled = Rc::clone(&batch);
        // Called from C, so it must not panic: it only copies.
        builder
            .add(&skel.maps.ring, move |record| {
                filled.borrow_mut().push(record);
                0
            })
            .context("map the ring")?;
        let ring = builder.build().context("map the ring")?;
        let links = match config.at_start {
            AtStart::PrintOnly => Default::default(),
            _ => programs::attach(&skel.progs, &loaded, set, config.net_admin(), &mut notes)?,
        };
        if config.follow {
            follow::mark_self(&skel.maps.followed)?;
        }
        let iterators = match config.at_start {
            AtStart::Ignore => None,
            _ => Some(Iterators::new(&skel.progs, &loaded, config)?),
        };
        set_bss_flag(&mut skel, |bss| &mut bss.existing_running, iterators.is_some().into());
        set_bss_flag(&mut skel, |bss| &mut bss.started, 1);
        let orphans = orphans(&skel, &loaded);
        // the close, without which none is counted, and the accept
        let events_of_accepted = 1 + u64::from(config.events.iter().any(|name| name == EventName::Accept));
        Ok(Tracer {
            skel,
            loaded,
            links,
            ring,
            batch,
            set,
            notes,
            iterators,
            orphans,
            skipped_accepts: 0,
            events_of_accepted,
        })
    }

    /// The probe set in use.
    pub fn probe_set(&self) -> ProbeSet {
        self.set
    }

    /// A check whether a process has not called exec since its record was made.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub fn image_check(&self) -> Result<impl Fn(&Process) -> bool + use<>> {
        let images = Images::new(&self.skel.maps.images)?;
        Ok(move |process: &Process| images.is_current(process))
    }

    /// Whether maps can be read with the current privileges.
    pub fn reads_maps(&self) -> bool {
        self.skel.maps.slots.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).is_ok()
    }

    /// Notes on what could not be attached.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

/// Sets a variable that the programs read.
fn set_bss_flag(skel: &mut NetmonSkel<'_>, variable: fn(&mut types::bss) -> &mut u32, value: u32) {
    if let Some(bss) = skel.maps.bss_data.as_deref_mut() {
        // SAFETY: it is a valid, aligned integer in a shared mapping.
        unsafe { std::ptr::from_mut(variable(bss)).write_volatile(value) };
    }
}

impl Tracer<'_> {
    /// Visits the kernel side's entry for each connection, until `visit` returns false.
    fn each_conn(&self, mut visit: impl FnMut(layout::conn) -> bool) -> Result<()> {
        const AT_ONCE: u32 = 4096;
        let unknown = "an entry of the connection table has an unknown size";
        let maps = &self.skel.maps;
        for entry in maps.slots.lookup_batch(AT_ONCE, MapFlags::ANY, MapFlags::ANY)? {
            let slot: layout::slot = layout::read(&entry.1).context(unknown)?;
            if slot.cookie != 0 && !visit(slot.conn) {
                return Ok(());
            }
        }
        for key in maps.conns.keys() {
            if let Some(conn) = maps.conns.lookup(&key, MapFlags::ANY)?
                && !visit(layout::read(&conn).context(unknown)?)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the kernel side count entries as lost whose sockets no longer exist.
    fn count_orphans(&mut self) {
        if let Some(mut all) = self.orphans.take() {
            let _ = std::io::copy(&mut all, &mut std::io::sink());
        }
    }
}

/// An iterator that counts such entries when it is read, which is once. It is created while we may still do so; without
/// it such entries are just not counted.
fn orphans(skel: &NetmonSkel<'_>, loaded: &[Loaded]) -> Option<File> {
    let link = programs::attach_one(&skel.progs.on_orphans, loaded).ok()??;
    iterators::create(link.as_fd()).ok()
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

    fn visit_existing(&mut self) -> Result<bool> {
        if let Some(iterators) = &mut self.iterators {
            if iterators.read()? {
                return Ok(true);
            }
            self.notes.extend(iterators.note());
        }
        self.iterators = None;
        set_bss_flag(&mut self.skel, |bss| &mut bss.existing_running, 0);
        Ok(false)
    }

    fn lost(&self) -> Lost {
        let mut lost = counters::lost(&self.skel);
        lost.missed += self.skipped_accepts * self.events_of_accepted;
        lost
    }

    fn images_in_use(&mut self) -> Result<HashSet<ImageId>> {
        if let Some(bss) = self.skel.maps.bss_data.as_deref_mut() {
            // SAFETY: `epoch` is a valid, aligned integer in a shared mapping.
            unsafe { std::ptr::from_mut(&mut bss.epoch).write_volatile(bss.epoch.wrapping_add(1)) };
        }
        counters::wait_for_programs();
        let mut used = HashSet::new();
        self.each_conn(|conn| {
            used.extend([conn.image, conn.closer].into_iter().filter(|&id| id != 0).map(ImageId));
            true
        })?;
        Ok(used)
    }

    fn has_open(&self) -> bool {
        let mut open = false;
        let visited = self.each_conn(|conn| {
            open = conn.image != 0 || conn.pid != 0;
            !open
        });
        visited.is_ok() && open
    }

    fn detach(&mut self) {
        // Connections that closed unseen are counted while the other counters still work.
        self.count_orphans();
        if self.set == ProbeSet::Tracepoint {
            self.skipped_accepts = counters::skipped_accepts(&self.skel, &self.loaded);
        }
        // Later connections do not count, not even as lost when only their end is seen.
        set_bss_flag(&mut self.skel, |bss| &mut bss.started, 0);
        // Detach in reverse order: no connection may begin whose end the remaining programs would not report.
        while let Some(link) = self.links.pop() {
            drop(link);
        }
        // A record that is still being written hides later ones from the reader.
        counters::wait_for_programs();
    }
}
