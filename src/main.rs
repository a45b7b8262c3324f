//! Parse, plan, attach, run, exit code.

use std::{
    io::{IsTerminal, stderr, stdout},
    mem::MaybeUninit,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Parser;
use tcptrace::{
    bpf::{self, Config, Tracer},
    cli::{Args, Format},
    diagnosis,
    host::{self, Machine},
    output::Output,
    plan::{Plan, Surroundings},
    report,
    session::Session,
    sink::{Sink, json::Json, table::Table},
    stop::Stop,
};

fn main() -> ExitCode {
    let args = Args::parse();
    let around = Surroundings {
        stdout_is_terminal: stdout().is_terminal(),
        no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    };
    let plan = Plan::new(&args, around);
    match run(&plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::line(&mut stderr(), &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(plan: &Plan) -> Result<()> {
    let signalled = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&signalled);
    ctrlc::set_handler(move || seen.store(true, std::sync::atomic::Ordering::Relaxed))
        .context("catch signals")?;

    let mut storage = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let facts = host::facts();
    let config = Config {
        events: plan.events,
        ring_size: plan.ring_size,
        probes: plan.probes,
        net_admin: facts.net_admin(),
    };
    let started = Tracer::start(config, &mut storage);
    if plan.verbose {
        report::log(&mut stderr(), &bpf::take_log());
    }
    let mut tracer = started.map_err(|error| diagnosis::explain(error, &facts, plan.probes))?;
    if !plan.quiet {
        report::ready(&mut stderr(), tracer.probe_set(), tracer.notes());
    }

    let mut sink: Box<dyn Sink> = match plan.format {
        Format::Table => Box::new(Table::new(plan.color)),
        Format::Json => Box::new(Json::new(host::all_capabilities(), Vec::new())),
    };
    let deadline = plan.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let summary = Session {
        source: &mut tracer,
        host: &Machine,
        sink: &mut *sink,
        output: &mut Output::new(stdout()),
        stop: Stop::new(signalled, deadline, plan.count),
    }
    .run()?;
    report::summary(&mut stderr(), &summary, plan.quiet);
    Ok(())
}
