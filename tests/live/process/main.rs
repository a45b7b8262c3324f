//! The processes and parents in events, for every kind of process. Needs root.
//!
//! The processes are this program run again (`common::script`) with arbitrary arguments, so the standard test harness,
//! which would parse them, is not used.

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod container_names;
mod containers;
mod hostile;
mod images;
mod losses;
mod paths;
mod privileges;
mod support;

use common::harness::{self, Group::InTurn, trial};

fn main() {
    if let Some(part) = common::actor::part() {
        return common::script::play(&part);
    }
    let many_images = trial(
        "losses",
        "memory_stays_bounded_with_many_images",
        losses::memory_stays_bounded_with_many_images,
    );
    let mut losses = losses::tests();
    // 20,000 connections take too long in a virtual machine
    losses.push(many_images.with_ignored_flag(support::in_guest()));
    // Sequential: a fork while another thread writes a program would keep that file busy.
    harness::run(vec![
        InTurn(images::tests()),
        InTurn(privileges::tests()),
        InTurn(arguments::tests()),
        InTurn(paths::tests()),
        InTurn(containers::tests()),
        InTurn(container_names::tests()),
        InTurn(hostile::tests()),
        InTurn(losses),
    ]);
}
