//! Who did it: the process and parent of events, for every kind of process. Needs root.
//!
//! The processes are this program run again (`common::script`), so that their arguments are free:
//! there is no test harness in between that would read them.

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod containers;
mod images;
mod losses;
mod paths;
mod privileges;
mod witness;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if let Some(part) = common::actor::part() {
        return common::script::play(&part);
    }
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let tests = vec![
        trial("every_one_of_many_that_live_a_moment", images::many_that_live_a_moment),
        trial("parents_that_die_at_once", images::parents_that_die_at_once),
        trial("an_orphan_has_its_new_parent", images::an_orphan_has_its_new_parent),
        trial("fork_exec_and_threads", images::fork_exec_and_threads),
        trial("as_proc_tells_it", images::as_proc_tells_it),
        trial("set_id_executables", privileges::set_id_executables),
        trial("file_capabilities", privileges::file_capabilities),
        trial("credentials_that_change", privileges::credentials_that_change),
        trial("threads_with_a_user_each", privileges::threads_with_a_user_each),
        trial("root_of_a_user_namespace", privileges::root_of_a_user_namespace),
        trial("arguments_of_all_kinds", arguments::of_all_kinds),
        trial("a_title", arguments::a_title),
        trial("no_name_leads_to_it", paths::no_name_leads_to_it),
        trial("a_script_shows_its_interpreter", paths::a_script_shows_its_interpreter),
        trial("mounts_and_roots", paths::mounts_and_roots),
        trial("deep_directories", paths::deep_directories),
        trial("containers_of_every_runtime", containers::of_every_runtime),
        trial("a_lost_record_is_sent_again", losses::a_lost_record_is_sent_again),
        trial("more_images_than_are_kept", losses::more_images_than_are_kept)
            .with_ignored_flag(witness::in_guest()), // 20,000 connections
    ];
    // One at a time: whoever forks while another writes a program keeps that file busy.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, tests).exit();
}
