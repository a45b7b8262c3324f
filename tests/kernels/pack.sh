# Builds the file system of a guest: busybox, the kernel's modules, programs at the same paths as here. Sourced by run.

# What the tests call that busybox does not have, or has with less.
tools=(setpriv ip setcap)

# build_tests: every test program of the crate, statically linked, into the array `tests`; tcptrace lies two folders up.
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

# dynamic FILE: is it a program that needs libraries? (ldd is content with a static-pie and says nothing of the kind.)
dynamic() { ldd "$1" 2> /dev/null | grep --quiet '=>'; }

# place FILE: puts a file, and the libraries it is linked with, into the guest at its own path.
place() {
  local file library
  file=$(realpath --no-symlinks "$1")
  [[ -f $file ]] || die "no such file: $file"
  mkdir -p "$root${file%/*}"
  cp --dereference "$file" "$root$file"
  strip --strip-debug "$root$file" 2> /dev/null || true
  for library in $(ldd "$file" 2> /dev/null | grep --only-matching '/[^ ]*'); do
    [[ -e $root$library ]] || place "$library"
  done
}

# pack_base: what all guests share, as an archive.
pack_base() {
  local file
  root=$work/root
  mkdir -p "$root"/{bin,sbin,etc,dev,proc,sys,root,guest,lib,usr/bin,usr/sbin}
  cp "$(type -p busybox)" "$root/bin/busybox"
  cp "$here/init" "$root/init"
  chmod +x "$root/init"
  printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/:/bin/sh' > "$root/etc/passwd"
  printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' > "$root/etc/group"
  printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
  for file in ${tests[@]+"${tests[@]}"}; do
    dynamic "$file" && die "$file is not statically linked"
    place "$file"
    file=${file%/deps/*}/tcptrace
    [[ -e $file && ! -e $root$file ]] && place "$file"
  done
  for file in "${tools[@]}"; do
    file=$(PATH=$PATH:/usr/sbin:/sbin type -p "$file") || die "the tests need the program $file: make test-deps"
    place "$file"
  done
  for file in ${added[@]+"${added[@]}"}; do place "$(type -p "$file" || echo "$file")"; done
  archive "$root" > "$work/base"
}

archive() { (cd "$1" && find . | cpio --quiet --create --format newc --owner 0:0); }

# pack_guest FOLDER SETTINGS: the archive of one guest: what all share, the modules of the kernel in FOLDER, its settings and jobs.
pack_guest() {
  local own=$work/own setting
  [[ -e $work/base ]] || pack_base
  rm -rf "$own"
  mkdir -p "$own/guest"
  cp -r "$1/modules" "$own/guest/"
  cp "$work/jobs" "$own/guest/jobs"
  for setting in $2; do
    [[ $setting == *=* ]] || die "not a setting (NAME=VALUE): $setting"
    printf '%s=%q\n' "${setting%%=*}" "${setting#*=}"
  done > "$own/guest/settings"
  { cat "$work/base"; archive "$own"; } > "$work/initrd"
}
