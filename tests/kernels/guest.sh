# shellcheck shell=bash
# Boots a guest and evaluates its serial lines: results on the second, the kernel's console on the first.
# Sourced by run.

# Kernel messages that report a problem.
splats='WARNING: |BUG: |Oops|Kernel panic|general protection fault|INFO: task .* blocked|self-detected stall|possible recursive locking|circular locking|suspicious RCU|refcount_t: |unregister_netdevice: waiting|list_(add|del) corruption'
# The corresponding bits in /proc/sys/kernel/tainted: machine check, bad page, oops, warning, soft lockup.
tainted_mask=$((16 | 32 | 128 | 512 | 16384))

# boot GUEST FOLDER CMDLINE: boots the kernel in FOLDER and prints the second serial line of the guest in $work/GUEST; its
# first goes to the file `console` there. The exit status is that of qemu, or 124 after a timeout.
# KVM is not used: it hangs on some hosts, and CI must behave the same everywhere.
# One thread for both processors: with separate threads, qemu has a race when the kernel patches its code (as attaching a
# trampoline does), and one boot in thirty ends with "Oops: int3".
boot() {
  timeout --foreground --kill-after 5 "$limit" qemu-system-x86_64 "${processor[@]}" -cpu max -m 1536 \
    -nic none -display none -monitor none -no-reboot -kernel "$2/vmlinuz" -initrd "$work/$1/initrd" \
    -serial "file:$work/$1/console" -serial stdio \
    -append "console=ttyS0 loglevel=5 panic=-1 no_timer_check $3" < /dev/null
}

# exec_in_guest KERNEL COMMAND CMDLINE SETTINGS: boots for --exec and returns the status of the command.
exec_in_guest() {
  local folder line status=1 ended=''
  folder=$("$here/fetch" "$1") || exit 1
  mkdir "$work/exec"
  pack_guest exec "$folder" "$4" <<< "job exec sh -c $(printf %q "$2")"
  while IFS= read -r line || [[ $line ]]; do
    case $line in
      '@@start '* | '@@tainted '*) ;;
      '@@end '*) status=${line#@@end } status=${status%% *} ;;
      '@@done') ended=yes ;;
      *) printf '%s\n' "$line" ;;
    esac
  done < <(boot exec "$folder" "$3")
  if [[ $console || ! $ended ]]; then sed 's/^/console: /' "$work/exec/console" >&2; fi
  [[ $ended ]] || die "the guest did not come to its end"
  exit "$status"
}

# write_jobs JOBS: the guest's job lines for a row's last column: [NAME=VALUE]... PROGRAM [ARGUMENT]..., separated by commas.
# PROGRAM is a pattern for the names of test programs.
write_jobs() {
  local job pattern arguments environment program file any
  tr ',' '\n' <<< "$1" | while read -r job; do
    environment='' any=''
    while [[ ${job%% *} == *=* ]]; do
      environment+="${job%% *} "
      job=${job#* }
    done
    read -r pattern arguments <<< "$job"
    for file in "${tests[@]}"; do
      program=${file##*/}
      program=${program%-*}
      # shellcheck disable=SC2053 # deliberately a pattern
      [[ $program == $pattern ]] || continue
      echo "job $program env $environment$(printf %q "$file") $arguments"
      any=yes
    done
    [[ $any ]] || echo "job $pattern echo no test program has this name"
  done
}

# fail GUEST WHAT: counts and prints a failure.
fail() {
  ((++failed))
  echo "$1| FAILED: $2"
}

# test_in_guest NAME KERNEL CMDLINE SETTINGS JOBS: runs the jobs, prints the results, writes the counts to $work/NAME/counts.
test_in_guest() {
  local name=$1 folder line job='' last='' ended='' results=0 failures=0 began=$SECONDS p f s
  local passed=0 failed=0 skipped=0
  local result='^test result: [a-zA-Z]+\. ([0-9]+) passed; ([0-9]+) failed; ([0-9]+) ignored;'
  rm -rf "${work:?}/$name"
  mkdir "$work/$name"
  folder=$("$here/fetch" "$2")
  write_jobs "$5" > "$work/$name/jobs"
  pack_guest "$name" "$folder" "$4 situation=$name kernel=$2" < "$work/$name/jobs"
  began=$SECONDS
  exec 3< <(boot "$name" "$folder" "$3")
  local pid=$!
  while IFS= read -r line <&3 || [[ $line ]]; do
    case $line in
      '@@start '*) job=${line#@@start } results=0 failures=0 ;;
      '@@end '*)
        last=${line#@@end }
        ((results)) || fail "$name" "${last#* } gave no result line (status ${last%% *})"
        [[ ${last%% *} == 0 || $failures -gt 0 || $results == 0 ]] || fail "$name" "${last#* } ended with status ${last%% *}"
        job=''
        ;;
      '@@tainted '*) ((${line#@@tainted } & tainted_mask)) && fail "$name" "the kernel says it is tainted: ${line#@@tainted }" ;;
      '@@done') ended=yes ;;
      '') ;;
      *)
        printf '%s| %s\n' "$name" "$line"
        if [[ $line =~ $result ]]; then
          p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
          ((++results, passed += p, failed += f, skipped += s, failures += f)) || true
          ((p + f)) || fail "$name" "$job ran no test"
        fi
        ;;
    esac
  done
  exec 3<&-
  local status=0
  wait "$pid" || status=$?
  if ((status == 124 || status == 137)); then fail "$name" "the guest was still running after $limit s${job:+, in $job}"
  elif [[ ! $ended ]]; then fail "$name" "the guest ended early${job:+, in $job}"; fi
  if grep --extended-regexp --quiet "$splats" "$work/$name/console"; then
    fail "$name" "the kernel complained"
    ended=''
  fi
  if [[ $console || ! $ended ]]; then tail --lines 80 "$work/$name/console" | sed "s/^/$name| console: /"; fi
  echo "$name| $passed passed, $failed failed, $skipped skipped in $((SECONDS - began)) s"
  echo "$passed $failed $skipped" > "$work/$name/counts"
}
