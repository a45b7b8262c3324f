//! Creates the large maps on a second thread, while libbpf prepares the programs: the kernel clears their memory, which
//! takes it as long as the preparation.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};
use libbpf_rs::{AsRawLibbpf, MapHandle, OpenMapMut, OpenObject, libbpf_sys};

/// A map that is being created. Until then, libbpf has a small one in its place.
pub struct LargeMap {
    name: OsString,
    created: JoinHandle<libbpf_rs::Result<MapHandle>>,
}

impl LargeMap {
    /// Starts to create this map.
    ///
    /// # Errors
    /// When libbpf has created it already.
    pub fn begin(map: &mut OpenMapMut<'_>) -> Result<LargeMap> {
        let name = map.name().to_owned();
        let (kind, key, value, entries) =
            (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
        let (flags, called) = (map.map_flags(), name.clone());
        map.set_max_entries(1)?; // for a ring, libbpf makes a page of this
        let created = thread::spawn(move || {
            let options = libbpf_sys::bpf_map_create_opts {
                sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
                map_flags: flags,
                ..Default::default()
            };
            MapHandle::create(kind, Some(called), key, value, entries, &options)
        });
        Ok(LargeMap { name, created })
    }

    /// Puts the map in the place of the small one. `object` has been prepared, but no program is loaded: the programs
    /// refer to a map by its descriptor.
    ///
    /// # Errors
    /// When the kernel refuses the map, for example for lack of memory.
    pub fn replace(self, object: &OpenObject) -> Result<()> {
        let created = self.created.join().map_err(|_| anyhow!("the thread that creates a map panicked"))?;
        let large = created.with_context(|| format!("create map {}", self.name.display()))?;
        let small = object.maps().find(|map| map.name() == self.name).context("no such map")?;
        let small = small.as_libbpf_object().as_ptr();
        // SAFETY: the map belongs to the object. libbpf, to which its descriptor belongs, knows nothing else of the map
        // in the kernel, and has done the same with a placeholder.
        let outcome =
            unsafe { libc::dup3(large.as_fd().as_raw_fd(), libbpf_sys::bpf_map__fd(small), libc::O_CLOEXEC) };
        if outcome < 0 { Err(io::Error::last_os_error()).context("replace a map") } else { Ok(()) }
    }
}
