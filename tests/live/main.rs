//! The tests that need root and BPF: real connections, and the events reported for them.
//!
//! Each module is a group that runs on its own; its tests run in parallel unless they would see each other's events.

mod common;
#[path = "../common/filter_cases.rs"]
mod filter_cases;
#[path = "../common/odr_server.rs"]
mod odr_server;

mod acceptors;
mod attach;
mod close_reasons;
mod command;
mod dns;
mod dns_answers;
mod dns_filters;
mod event_kinds;
mod examples;
mod existing;
mod faults;
mod filter_kernel;
mod filters;
mod formats;
mod kernel_sockets;
mod lifecycle;
mod load;
mod output_file;
mod probe_sets;
mod recordings;
mod rejected;
mod reports;
mod requests;
mod restricted_hosts;
mod sandbox;
mod scenarios;
mod summary;
mod terminal;
mod verifier;

use common::{
    actor,
    harness::{
        self,
        Group::{InTurn, SideBySide},
    },
    script,
};

fn main() {
    if let Some(part) = actor::part() {
        return play(&part);
    }
    harness::run(vec![
        SideBySide(lifecycle::tests()),
        SideBySide(output_file::tests()),
        SideBySide(acceptors::tests()),
        SideBySide(close_reasons::tests()),
        SideBySide(scenarios::tests()),
        SideBySide(reports::tests()),
        SideBySide(requests::tests()),
        SideBySide(rejected::tests()),
        SideBySide(existing::tests()),
        SideBySide(filters::tests()),
        SideBySide(event_kinds::tests()),
        SideBySide(filter_kernel::tests()),
        SideBySide(dns::tests()),
        SideBySide(dns_answers::tests()),
        SideBySide(dns_filters::tests()),
        SideBySide(formats::tests()),
        SideBySide(recordings::tests()),
        SideBySide(summary::tests()),
        InTurn(terminal::tests()),
        SideBySide(command::tests()),
        SideBySide(examples::tests()),
        SideBySide(restricted_hosts::tests()),
        SideBySide(sandbox::tests()),
        SideBySide(kernel_sockets::tests()),
        SideBySide(probe_sets::tests()),
        SideBySide(verifier::tests()),
        SideBySide(faults::tests()),
        InTurn(load::tests()),
        InTurn(attach::tests()),
    ]);
}

/// The part that this program plays when a test has started it as another process.
fn play(part: &str) {
    match part {
        "accept forever" => acceptors::accept_forever(),
        "connect and hold" => close_reasons::connect_and_hold(),
        "connect and pass on" => close_reasons::connect_and_pass_on(),
        "close what was inherited" => close_reasons::close_inherited(),
        "connect and close, many times" => existing::connect_and_close_many_times(),
        "connect to given addresses" => reports::connect_to_given_addresses(),
        "fork and exit" => reports::fork_and_exit(),
        "drop privileges of an old kernel" => sandbox::drop_privileges_as_on_an_old_kernel(),
        part => match part.strip_prefix("client ") {
            Some(client) => filters::client(client),
            None => script::play(part),
        },
    }
}
