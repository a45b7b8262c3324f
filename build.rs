//! Compiles the BPF programs and writes their Rust skeleton to `OUT_DIR/netmon.skel.rs`.

use std::{collections::BTreeSet, env, error::Error, fs, path::Path, process::Command};

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "src/bpf/netmon.bpf.c";

fn main() {
    println!("cargo:rerun-if-changed=src/bpf");
    if let Err(error) = compile() {
        eprintln!("{SOURCE}: {error:#}");
        eprintln!("clang 14 or newer is needed; `make deps` installs it");
        std::process::exit(1);
    }
    link_dependencies_of_libelf();
}

/// Compiles three objects: `all/netmon.o`; `since-6.2/netmon.o`, without code for kernels before Linux 6.2; and
/// `plain/netmon.o`, for the same kernels, without code that only some options need. The skeleton is the same for all,
/// and gets the one to use from `object()` (src/tracer/skel.rs).
fn compile() -> Result<(), Box<dyn Error>> {
    let out = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let out = Path::new(&out);
    let skeleton = skeleton_of(&out.join("all"), &[])?;
    for (folder, defines) in [("since-6.2", &["-DHAS_CAST=1"][..]), ("plain", &["-DHAS_CAST=1", "-DPLAIN"])] {
        if !types_of(&skeleton_of(&out.join(folder), defines)?).is_subset(&types_of(&skeleton)) {
            return Err(format!("the object in {folder} has other types, maps or programs").into());
        }
    }
    let (before, after) =
        skeleton.split_once("ConfigBuilder::new(&DATA)").ok_or("the skeleton has another form")?;
    fs::write(out.join("netmon.skel.rs"), format!("{before}ConfigBuilder::new(object()){after}"))?;
    Ok(())
}

/// Compiles `netmon.o` in `folder`, and returns its skeleton.
fn skeleton_of(folder: &Path, defines: &[&str]) -> Result<String, Box<dyn Error>> {
    // v3: 32-bit registers and atomic fetch-and-add, supported since Linux 5.12
    let mut arguments = vec!["-I", "src/bpf", "-mcpu=v3", "-Wall", "-Werror", "-Wno-unused-function"];
    arguments.extend(defines);
    if env::var_os("CARGO_FEATURE_TEST_PROGRAMS").is_some() {
        arguments.push("-DTEST_PROGRAMS");
    }
    // Reproducible builds: the output must not contain the build directory. Without the trailing slash, because BTF also
    // records the compilation directory, in front of each file.
    let without_folder = format!("-ffile-prefix-map={}=.", env::var("CARGO_MANIFEST_DIR")?);
    arguments.push(&without_folder);
    fs::create_dir_all(folder)?;
    let skeleton = folder.join("netmon.skel.rs");
    SkeletonBuilder::new()
        .source(SOURCE)
        .obj(folder.join("netmon.o"))
        .reference_obj(true)
        .clang_args(arguments)
        .build_and_generate(&skeleton)?;
    Ok(fs::read_to_string(skeleton)?)
}

/// What a skeleton consists of, except the object itself. The order of the types may differ, and kernel types that are
/// not used are missing.
fn types_of(skeleton: &str) -> BTreeSet<&str> {
    let (types, _object) = skeleton.split_once("static DATA").unwrap_or((skeleton, ""));
    types.split("#[derive").collect()
}

/// Newer versions of libelf.a also need libzstd.a: pkg-config reports it, but libbpf-sys does not query pkg-config.
fn link_dependencies_of_libelf() {
    let Ok(output) = Command::new("pkg-config").args(["--static", "--libs-only-l", "libelf"]).output() else {
        return;
    };
    let wanted = String::from_utf8_lossy(&output.stdout).into_owned();
    for name in wanted.split_whitespace().filter_map(|flag| flag.strip_prefix("-l")) {
        if !matches!(name, "elf" | "z" | "pthread") {
            println!("cargo:rustc-link-lib=static={name}");
        }
    }
}
