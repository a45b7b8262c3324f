//! Compares the kernel's filter with the reference evaluator.

use crate::filter_cases::{filter, subject};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use std::cell::Cell;
use std::mem::MaybeUninit;
use tcptrace::tracer::filter_test_run::FilterTestRun;

/// Loading takes milliseconds, a run microseconds, so there are many cases per filter.
const FILTERS: u32 = 250;
const SUBJECTS: usize = 80;
const CASES: u32 = 10_000;

fn the_kernel_agrees_with_the_reference() {
    // TCPTRACE_TEST_FILTERS sets the number of filters, for longer runs.
    let filters = std::env::var("TCPTRACE_TEST_FILTERS").ok().and_then(|text| text.parse().ok());
    let filters = filters.unwrap_or(FILTERS);
    let compared = Cell::new(0);
    let cases = (filter(), prop::collection::vec(subject(), SUBJECTS));
    let outcome = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(filters) }).run(
        &cases,
        |(filter, subjects)| {
            // Filters that are rejected are covered by another test.
            let Ok(program) = filter.compile() else { return Ok(()) };
            let fail = |e: anyhow::Error| TestCaseError::fail(format!("{e:#}"));
            let mut storage = MaybeUninit::uninit();
            let mut classifier = FilterTestRun::load(&program, &mut storage).map_err(fail)?;
            for subject in &subjects {
                classifier.prepare(subject).map_err(fail)?;
                let (verdict, _) = classifier.run(1).map_err(fail)?;
                prop_assert_eq!(verdict, filter.evaluate(subject), "{:?}", subject);
                compared.set(compared.get() + 1);
            }
            Ok(())
        },
    );
    outcome.unwrap_or_else(|e| panic!("{e}"));
    println!("{} cases compared", compared.get());
    assert!(compared.get() >= CASES, "only {} cases were compared", compared.get());
}

crate::tests![the_kernel_agrees_with_the_reference,];
