# shellcheck shell=bash
# Builds the file system of a guest: busybox, kernel modules, and programs at the same paths as on the host. Sourced by run.

# Programs used by tests that busybox lacks or implements only in part.
tools=(setpriv ip setcap ss)

# build_tests: builds all test programs, statically linked, into the array `tests`; tcptrace is two directories above.
build_tests() {
  local log=$work/cargo.log target=x86_64-unknown-linux-gnu
  echo "building the test programs" >&2
  : "${CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS:=-C target-feature=+crt-static}" # as in the Makefile
  export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS
  cargo test --no-run --tests --target $target --manifest-path "$here/../../Cargo.toml" 2> "$log" ||
    { cat "$log" >&2; die "the test programs do not build"; }
  mapfile -t tests < <(cd "$here/../.." && sed -n 's/^ *Executable .* (\(.*\))$/\1/p' "$log" | xargs realpath)
  ((${#tests[@]})) || die "cargo named no test program"
}

# dynamic FILE: whether a program needs shared libraries (ldd succeeds for a static-pie too, but lists none).
dynamic() { ldd "$1" 2> /dev/null | grep --quiet '=>'; }

# place ROOT FILE: copies a file, and the libraries it is linked with, into the guest at the same path.
place() {
  local root=$1 file library
  file=$(realpath --no-symlinks "$2")
  [[ -f $file ]] || die "no such file: $file"
  [[ -e $root$file ]] && return
  mkdir -p "$root${file%/*}"
  cp --dereference "$file" "$root$file"
  strip --strip-debug "$root$file" 2> /dev/null || true
  for library in $(ldd "$file" 2> /dev/null | grep --only-matching '/[^ ]*'); do
    place "$root" "$library"
  done
}

# place_test ROOT FILE: copies a test program, with the tcptrace it was built with.
place_test() {
  local tcptrace=${2%/deps/*}/tcptrace
  dynamic "$2" && die "$2 is not statically linked"
  place "$1" "$2"
  [[ ! -e $tcptrace ]] || place "$1" "$tcptrace"
}

# pack_base: makes the archive of the files common to all guests.
pack_base() {
  local file root=$work/root
  mkdir -p "$root"/{bin,sbin,etc,dev,proc,sys,root,guest,lib,usr/bin,usr/sbin}
  cp "$(type -p busybox)" "$root/bin/busybox"
  cp "$here/init" "$root/init"
  chmod +x "$root/init"
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/sh' > "$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' > "$root/etc/group"
  printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
  for file in "${tools[@]}"; do
    file=$(PATH=$PATH:/usr/sbin:/sbin type -p "$file") || die "the tests need the program $file: make test-deps"
    place "$root" "$file"
  done
  for file in ${added[@]+"${added[@]}"}; do place "$root" "$(type -p "$file" || echo "$file")"; done
  archive "$root" > "$work/base"
}

archive() { (cd "$1" && find . | cpio --quiet --create --format newc --owner 0:0); }

# pack_guest GUEST FOLDER SETTINGS < JOBS: makes the archive of one guest: the common files, the test programs of its jobs,
# the modules of the kernel in FOLDER, its settings and jobs.
pack_guest() {
  local own=$work/$1/own setting file
  mkdir -p "$own/guest"
  cp -r "$2/modules" "$own/guest/"
  cat > "$own/guest/jobs"
  for setting in $3; do
    [[ $setting == *=* ]] || die "not a setting (NAME=VALUE): $setting"
    printf '%s=%q\n' "${setting%%=*}" "${setting#*=}"
  done > "$own/guest/settings"
  for file in ${tests[@]+"${tests[@]}"}; do
    if grep --quiet --fixed-strings --word-regexp "$(printf %q "$file")" "$own/guest/jobs"; then place_test "$own" "$file"; fi
  done
  { cat "$work/base"; archive "$own"; } > "$work/$1/initrd"
  rm -rf "$own"
}
