//! Why the kernel said no: a policy, something it does not have, or its verifier.

use std::fmt;

use libbpf_rs::ErrorKind;

/// The verifier has rejected one of the programs, which it is not to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Rejection {
    program: String,
}

impl Rejection {
    /// By libbpf's log. The verifier uses the errno of a policy, but it gives reasons: only it
    /// writes a log of the program.
    pub fn find(log: &str) -> Option<Self> {
        let (before, after) = log.split_once("': BPF program load failed")?;
        let (_, program) = before.rsplit_once("prog '")?;
        let reasons = format!("prog '{program}': -- BEGIN PROG LOAD LOG --");
        after.contains(&reasons).then(|| Rejection { program: program.to_owned() })
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = &self.program;
        write!(f, "the kernel's verifier rejects {program}: this is a bug, please report what --verbose says")
    }
}

impl std::error::Error for Rejection {}

/// ENOTSUPP: no trampolines on this architecture or configuration. ESRCH, ENOENT: the function to
/// hook is not there. EBUSY: something else has patched it.
pub fn refuses_trampolines(error: &anyhow::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    is_denied(error)
        || error.is::<Rejection>()
        || kind_of(error) == Some(ErrorKind::NotFound)
        || errno_of(error)
            .is_some_and(|raw| [libc::ESRCH, libc::ENOENT, libc::EBUSY, ENOTSUPP].contains(&raw))
}

/// A capability is missing, or a policy is against it.
pub fn is_denied(error: &anyhow::Error) -> bool {
    kind_of(error) == Some(ErrorKind::PermissionDenied)
        || errno_of(error).is_some_and(|raw| [libc::EPERM, libc::EACCES].contains(&raw))
}

fn kind_of(error: &anyhow::Error) -> Option<ErrorKind> {
    error.downcast_ref::<libbpf_rs::Error>().map(libbpf_rs::Error::kind)
}

/// The errno at the root of an error, where there is one.
fn errno_of(error: &anyhow::Error) -> Option<i32> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_gives_reasons_and_a_policy_does_not() {
        let loaded = "libbpf: prog 'on_exec': -- BEGIN PROG LOAD LOG --\nprocessed 9 insns\n";
        let failed = "libbpf: prog 'on_state': BPF program load failed: -EACCES\n";
        let reasons = "libbpf: prog 'on_state': -- BEGIN PROG LOAD LOG --\n\
                       combined stack size of 5 calls is 544. Too large\n";
        let of = |parts: &[&str]| Rejection::find(&parts.concat());
        assert_eq!(of(&[loaded, failed, reasons]), Some(Rejection { program: "on_state".to_owned() }));
        assert_eq!(of(&[loaded, failed]), None);
        assert_eq!(of(&[loaded]), None);
        assert_eq!(of(&[]), None);
    }
}
