//! The sandbox of the process that reads the files of container runtimes.

use std::os::fd::BorrowedFd;

use anyhow::{Context, Result};
use landlock::PathBeneath;
use libc::c_long;
use rustix::thread::CapabilitySet;
use seccompiler::BackendError;

use super::{
    READS, Rules, allow, calls, compile, give_up_all_but_permitted, is, keep, reading, restrict_files_to,
};
use crate::host::sudo_user::SudoUser;

/// Continues as the invoking user, with access only to files below `folders`, whoever owns them, and to the socket.
///
/// # Errors
/// When the kernel refuses a step. A kernel without Landlock is not an error.
pub fn confine<'a>(invoker: Option<&SudoUser>, folders: impl Iterator<Item = BorrowedFd<'a>>) -> Result<()> {
    let kept = give_up_all_but_permitted(invoker)? & CapabilitySet::DAC_READ_SEARCH;
    keep(kept, kept)?;
    restrict_files_to(folders.map(|folder| Ok(PathBeneath::new(folder, READS))), false)?;
    seccompiler::apply_filter(&compile(rules()?)?).context("restrict system calls with seccomp")
}

/// Allowed with any arguments.
const CALLS: &[(&str, c_long)] = calls! {
    // requests and answers
    SYS_read SYS_write SYS_close
    // files and directories
    SYS_fstat SYS_newfstatat SYS_statx SYS_lseek SYS_getdents64
    // memory
    SYS_brk SYS_munmap SYS_mremap SYS_madvise SYS_getrandom
    // exit
    SYS_rt_sigreturn SYS_rt_sigprocmask SYS_sigaltstack SYS_restart_syscall SYS_futex SYS_exit SYS_exit_group
};

fn rules() -> Result<Rules, BackendError> {
    let mut rules = reading(CALLS.iter().map(|&(_, call)| call))?;
    // opendir(3) checks the access mode and sets close-on-exec
    let commands = [libc::F_GETFD, libc::F_GETFL, libc::F_SETFD];
    allow(&mut rules, libc::SYS_fcntl, commands.map(|command| vec![is(1, command as u64)]).into())?;
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn security_md_has_the_same_list() {
        let checked = ["openat", "mmap", "mprotect", "fcntl"];
        let allowed = rules().expect("rules");
        assert_eq!(allowed.len(), CALLS.len() + checked.len());
        let listed =
            crate::host::sandbox::tests::listed("### While it traces, the reader of containers' names\n");
        let names = CALLS.iter().filter_map(|(name, _)| name.strip_prefix("SYS_"));
        assert_eq!(listed, names.chain(checked).collect::<BTreeSet<_>>());
        assert!(compile(allowed).expect("a filter").len() < 200);
    }
}
