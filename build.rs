//! Compiles the BPF programs and writes their Rust skeleton to `OUT_DIR/netmon.skel.rs`.

use std::{env, path::PathBuf};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/bpf/netmon.bpf.c";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("netmon.skel.rs");
    println!("cargo:rerun-if-changed=src/bpf");
    // v3: 32-bit registers and atomic fetch-and-add, supported since Linux 5.12
    let mut arguments = vec!["-I", "src/bpf", "-mcpu=v3", "-Wall", "-Werror", "-Wno-unused-function"];
    if env::var_os("CARGO_FEATURE_TEST_PROGRAMS").is_some() {
        arguments.push("-DTEST_PROGRAMS");
    }
    // Reproducible builds: the output must not contain the build directory. Without the trailing slash, because BTF also
    // records the compilation directory, in front of each file.
    let here = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let without_folder = format!("-ffile-prefix-map={here}=.");
    arguments.push(&without_folder);
    let built = SkeletonBuilder::new().source(SOURCE).clang_args(arguments).build_and_generate(&out);
    if let Err(error) = built {
        eprintln!("{SOURCE}: {error:#}");
        eprintln!("clang 14 or newer is needed; `make deps` installs it");
        std::process::exit(1);
    }
    link_dependencies_of_libelf();
}

/// Newer versions of libelf.a also need libzstd.a: pkg-config reports it, but libbpf-sys does not query pkg-config.
fn link_dependencies_of_libelf() {
    let Ok(output) =
        std::process::Command::new("pkg-config").args(["--static", "--libs-only-l", "libelf"]).output()
    else {
        return;
    };
    let wanted = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in wanted.split_whitespace().filter_map(|flag| flag.strip_prefix("-l")) {
        if !matches!(name, "elf" | "z" | "pthread") {
            println!("cargo:rustc-link-lib=static={name}");
        }
    }
}
