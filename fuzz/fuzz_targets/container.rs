#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)] // each target uses its part
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::container(data));
