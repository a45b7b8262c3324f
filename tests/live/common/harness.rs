//! Runs live tests. libtest is not used because a test program that is started again as an actor needs arbitrary
//! arguments, and because tests that cannot run here should be reported as ignored, with the reason.

use libtest_mimic::{Arguments, Completion, Trial};

/// What a test may return: nothing, or that it cannot run here.
pub trait Outcome {
    fn completion(self) -> Completion;
}

impl Outcome for () {
    fn completion(self) -> Completion {
        Completion::Completed
    }
}

impl Outcome for Completion {
    fn completion(self) -> Completion {
        self
    }
}

/// Ends a test because this host lacks something, with the reason.
pub fn skipped(reason: &str) -> Completion {
    Completion::ignored_with(format!("skipped: {reason}"))
}

/// A test named after its function, `module::function`; without root it is skipped.
pub fn trial<O: Outcome + 'static>(module: &str, name: &str, test: fn() -> O) -> Trial {
    let module = module.rsplit("::").next().unwrap_or_default();
    Trial::ignorable_test(format!("{module}::{name}"), move || {
        if !nix::unistd::geteuid().is_root() {
            return Ok(skipped("needs root"));
        }
        Ok(test().completion())
    })
}

/// The tests of a module, by the names of their functions.
#[macro_export]
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$($crate::common::harness::trial(module_path!(), stringify!($name), $name)),*]
    };
}

/// Defines `tests()`, the tests of a module.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub fn tests() -> Vec<libtest_mimic::Trial> {
            $crate::trials![$($name),*]
        }
    };
}

/// How the tests of one group run.
pub enum Group {
    /// Run at the same time.
    SideBySide(Vec<Trial>),
    /// Run one after the other, because they would see each other's events.
    InTurn(Vec<Trial>),
}

/// Runs groups one after the other, each like a separate test program, and exits.
pub fn run(groups: Vec<Group>) -> ! {
    let arguments = Arguments::from_args();
    let mut failed = false;
    let mut found = false;
    for group in groups {
        let (mut tests, in_turn) = match group {
            Group::SideBySide(tests) => (tests, false),
            Group::InTurn(tests) => (tests, true),
        };
        tests.retain(|test| !arguments.is_filtered_out(test));
        if tests.is_empty() {
            continue;
        }
        found = true;
        let test_threads = if in_turn { Some(1) } else { arguments.test_threads };
        failed |= libtest_mimic::run(&Arguments { test_threads, ..arguments.clone() }, tests).has_failed();
    }
    if !found {
        libtest_mimic::run(&arguments, Vec::new()).exit();
    }
    std::process::exit(if failed { 101 } else { 0 });
}

/// A test for a particular kind of host: it runs in virtual machines of tests/kernels with that name.
pub fn in_guest(is_it: fn(&str) -> bool, needs: &'static str, module: &str, name: &str, test: fn()) -> Trial {
    let guest = std::env::var("TCPTRACE_TEST_SITUATION").unwrap_or_default();
    if is_it(&guest) {
        return trial(module, name, test);
    }
    let module = module.rsplit("::").next().unwrap_or_default();
    Trial::ignorable_test(format!("{module}::{name}"), move || {
        Ok(skipped(&format!("needs {needs}, see tests/kernels")))
    })
}
