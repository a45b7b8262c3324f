//! The large maps, which the kernel takes as long to clear as libbpf takes to prepare the programs: to be created on
//! another thread meanwhile.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, AsRawFd},
};

use anyhow::{Context, Result};
use libbpf_rs::{AsRawLibbpf, MapHandle, MapType, OpenMapMut, OpenObject, libbpf_sys};

/// A map that is still to be created.
pub struct LargeMap {
    name: OsString,
    kind: MapType,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl LargeMap {
    /// Takes over a map from libbpf, which will create a small one in its place.
    ///
    /// # Errors
    /// When libbpf has created it already.
    pub fn take(map: &mut OpenMapMut<'_>) -> Result<LargeMap> {
        let large = LargeMap {
            name: map.name().to_owned(),
            kind: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        };
        map.set_max_entries(1)?; // for a ring, libbpf makes a page of this
        Ok(large)
    }

    /// Creates the map.
    ///
    /// # Errors
    /// When the kernel refuses it, for example for lack of memory.
    pub fn create(&self) -> Result<MapHandle> {
        let options = libbpf_sys::bpf_map_create_opts {
            sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
            map_flags: self.flags,
            ..Default::default()
        };
        let (key, value) = (self.key_size, self.value_size);
        MapHandle::create(self.kind, Some(&self.name), key, value, self.max_entries, &options)
            .with_context(|| format!("create map {}", self.name.display()))
    }

    /// Puts the map in the place of the small one. `object` has been prepared, but no program is loaded: the programs
    /// refer to a map by its descriptor.
    ///
    /// # Errors
    /// When the object does not have the map, or its descriptor cannot be replaced.
    pub fn replace(&self, large: &MapHandle, object: &OpenObject) -> Result<()> {
        let small = object.maps().find(|map| map.name() == self.name).context("no such map")?;
        let small = small.as_libbpf_object().as_ptr();
        // SAFETY: the map belongs to the object. libbpf, to which its descriptor belongs, knows nothing else of the map
        // in the kernel, and has done the same with a placeholder.
        let outcome =
            unsafe { libc::dup3(large.as_fd().as_raw_fd(), libbpf_sys::bpf_map__fd(small), libc::O_CLOEXEC) };
        if outcome < 0 { Err(io::Error::last_os_error()).context("replace a map") } else { Ok(()) }
    }
}
