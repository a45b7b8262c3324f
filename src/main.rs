//! Parse, plan, attach, run, exit code.

use std::{
    io::{IsTerminal, Write, stderr, stdout},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tcptrace::{
    bpf::{self, Config, Tracer},
    cli::{Args, Format, envelope::EnvelopeArgs},
    command, destination, diagnosis,
    digest::{self, Room},
    dns::Namer,
    docs,
    filter::{Filter, Program},
    host::{self, Machine},
    judge::Judge,
    output::Output,
    plan::{AtStart, Plan, Surroundings},
    report,
    session::Session,
    sink::{
        Nothing, Sink,
        csv::Csv,
        json::Json,
        odr::{Metadata, Odr, Shape},
        table::{Look, Table, Zone},
        text,
    },
    stop::Stop,
    survey::Survey,
};

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = args.check() {
        error.exit();
    }
    if let Some(text) = docs::asked_for(&args) {
        // A reader that does not want it all is no failure.
        let _ = stdout().write_all(&text);
        return ExitCode::SUCCESS;
    }
    if args.become_command {
        let (error, code) = command::become_command(&args.command, host::invoker().as_ref());
        report::line(&mut stderr(), &format!("{error:#}"));
        return ExitCode::from(code);
    }
    let filter = match compile(&args) {
        Ok(compiled) => compiled,
        Err(error) => {
            report::line(&mut stderr(), &format!("{error:#}"));
            return ExitCode::from(2);
        }
    };
    match run(&args, &filter) {
        Ok(code) => code,
        Err(error) => {
            report::line(&mut stderr(), &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What to report. Whatever is wrong here is wrong with the usage.
fn compile(args: &Args) -> Result<(Filter, Program)> {
    let filter = args.filter.filter()?;
    if filter.needs_names() && args.no_dns {
        bail!("the filter compares dns, and with --no-dns no connection has a name: leave out one of them");
    }
    let program = filter.compile()?;
    Ok((filter, program))
}

fn run(args: &Args, (filter, program): &(Filter, Program)) -> Result<ExitCode> {
    let output = destination::open(args, host::invoker().as_ref())?;
    let around = Surroundings {
        output_is_terminal: output.is_terminal(),
        no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    };
    let plan = Plan::new(args, around);

    let signalled = Arc::new(AtomicBool::new(false));
    if plan.command.is_empty() {
        // Beside a command they are the command's.
        let seen = Arc::clone(&signalled);
        ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed)).context("catch signals")?;
    }

    let mut storage = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let facts = host::facts();
    let config = Config {
        filter: program,
        events: plan.events,
        dns: plan.dns,
        at_start: plan.at_start,
        ring_size: plan.ring_size,
        probes: plan.probes,
        verbose: plan.verbose,
        net_admin: facts.net_admin(),
        follow: !plan.command.is_empty(),
    };
    let started = Tracer::start(config, &mut storage);
    if plan.verbose {
        report::log(&mut stderr(), &bpf::take_log());
    }
    let mut tracer = started.map_err(|error| diagnosis::explain(error, &facts, plan.probes))?;
    let survey = Survey::take(&mut tracer, &Machine)?;
    let deadline = plan.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut stop = Stop::new(signalled, deadline, plan.count);
    if plan.at_start == AtStart::PrintOnly {
        tracer.notes().iter().for_each(|note| report::line(&mut stderr(), note));
        stop = stop.at_once();
    } else if !plan.quiet {
        let program = plan.command.first().map(|program| program.as_os_str());
        report::ready(&mut stderr(), tracer.probe_set(), tracer.notes(), plan.verbose, program);
    }
    if plan.command.is_empty() {
        trace(&plan, filter, &mut tracer, survey, output, stop)?;
        return Ok(ExitCode::SUCCESS);
    }
    let running = command::start(&plan.command)?;
    let traced = trace(&plan, filter, &mut tracer, survey, output, stop.after(running.ended()));
    if let Err(error) = &traced {
        report::line(&mut stderr(), &format!("{error:#}"));
    }
    let code = running.wait()?;
    Ok(if traced.is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE })
}

fn trace(
    plan: &Plan,
    filter: &Filter,
    tracer: &mut Tracer<'_>,
    survey: Survey,
    output: OwnedFd,
    stop: Stop,
) -> Result<()> {
    let mut sink = sink(plan, filter.rule_names(), &output)?;
    let mut output = Output::new(output);
    // A command has been started by now: it keeps its own.
    bpf::raise_priority();
    let summary = Session {
        source: tracer,
        host: &Machine,
        sink: &mut *sink,
        output: &mut output,
        stop,
        survey,
        namer: Namer::default(),
        judge: Judge::new(filter),
    }
    .run()?;
    if plan.summary_only {
        let room = room(output.fd());
        digest::put(&summary, plan.format, room, output.buffer());
        output.flush(|| true).context("write the summary")?;
    }
    let told = plan.quiet || plan.summary_only || plan.at_start == AtStart::PrintOnly;
    if plan.verbose {
        report::figures(&mut stderr(), &summary);
    }
    report::summary(&mut stderr(), &summary, told, room(stderr()));
    Ok(())
}

/// For a line of a summary.
fn room(of: impl AsFd) -> Room {
    let signs = if host::shows_utf8() { text::UNICODE } else { text::ASCII };
    Room { columns: host::screen(of).map(|size| size.columns), cut: signs.cut }
}

fn sink(plan: &Plan, rules: Vec<Option<String>>, output: &OwnedFd) -> Result<Box<dyn Sink>> {
    Ok(match plan.format {
        _ if plan.summary_only => Box::new(Nothing),
        Format::Table => {
            let zone = if plan.utc { Zone::utc() } else { Zone::local() };
            let look = Look { color: plan.color, utf8: host::shows_utf8(), zone };
            let terminal = output.try_clone().context("duplicate the output")?;
            Box::new(Table::new(look, move || host::screen(&terminal)))
        }
        Format::Json => Box::new(Json::new(host::all_capabilities(), rules)),
        Format::Csv => Box::new(Csv::new(rules)),
        Format::Odr => {
            let wall_ns = std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_nanos() as i128);
            let document = plan.at_start == AtStart::PrintOnly;
            let shape = if document { Shape::Document { wall_ns } } else { Shape::Lines };
            Box::new(Odr::new(metadata(&plan.envelope), shape))
        }
    })
}

fn metadata(args: &EnvelopeArgs) -> Metadata {
    Metadata {
        agent_id: args.agent_id.clone().or_else(host::machine_id).unwrap_or_else(host::name),
        agent_type: args.agent_type.clone(),
        project: args.project.clone(),
        source: host::name(),
        expiration: args.expiration.counted_from(std::time::SystemTime::now()),
    }
}
