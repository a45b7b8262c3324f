//! Parses arguments, sets up a run or a replay, and sets the exit code.

use std::{
    fs::Metadata,
    io::{IsTerminal, Write, stderr, stdin, stdout},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};
use tcptrace::{
    cli::{
        Args, docs, links,
        odr::OdrArgs,
        plan::{AtStart, Environment, Plan},
    },
    dns::DnsTracker,
    filter::{Filter, Program, predicate::Attribute},
    host::{
        self, Machine,
        command::{self, Running, Started},
        containers::reader::{self, Reader},
        sandbox,
    },
    output::{
        self, Format, Sink, messages,
        summary::Summary,
        summary_render,
        target::{self, Named, Output, Target},
        writer::{STALLED, Writer},
    },
    recording::{Replay, Skipped, file::Input, progress::Progress},
    session::{Session, dns_filter::DnsFilter, existing::ExistingSockets, stop::Stop},
    tracer::{self, Tracer, TracerConfig, load_error},
};

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = args.check() {
        error.exit();
    }
    if let Some(text) = docs::asked_for(&args) {
        // A reader that closes the pipe early is not an error.
        let _ = stdout().write_all(&text);
        return ExitCode::SUCCESS;
    }
    if args.become_command {
        let (error, code) = command::become_command(&args.command, host::invoker().as_ref());
        messages::line(&mut stderr(), &format!("{error:#}"));
        return ExitCode::from(code);
    }
    if args.read_containers {
        let served = reader::serve(!args.no_sandbox, host::invoker().as_ref());
        return if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let filter = match compile(&args) {
        Ok(compiled) => compiled,
        Err(error) => {
            messages::line(&mut stderr(), &format!("{error:#}"));
            return ExitCode::from(2);
        }
    };
    let done = if args.read.is_empty() { run(&args, &filter) } else { replay(&args, &filter.0) };
    match done {
        Ok(code) => code,
        Err(error) => {
            messages::line(&mut stderr(), &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Compiles the filter. All errors here are usage errors.
fn compile(args: &Args) -> Result<(Filter, Program)> {
    let mut filter = args.filter.filter()?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    // The links of the host where a recording was made are not known.
    let notes = if args.read.is_empty() { links::follow(&mut filter, &path) } else { Vec::new() };
    for note in notes.iter().filter(|_| !args.quiet) {
        messages::line(&mut stderr(), note);
    }
    if filter.mentions(|attribute| attribute == Attribute::Dns) && args.no_dns {
        bail!("the filter uses dns, which --no-dns disables; remove one of them");
    }
    if args.read.is_empty() && filter.mentions(Attribute::is_process_number) && host::in_pid_namespace() {
        bail!(
            "the filter uses pid or ppid, which are host process ids, but tcptrace runs in a PID namespace; \
             run it on the host, or in the host's namespace: nsenter --target 1 --pid"
        );
    }
    let program = filter.compile()?;
    Ok((filter, program))
}

fn run(args: &Args, (filter, program): &(Filter, Program)) -> Result<ExitCode> {
    let output = open(args)?;
    let plan = plan(args, &output.fd);
    // A snapshot ends soon.
    let named = output.named.as_ref().filter(|_| plan.at_start != AtStart::PrintOnly);
    let directory = named.map(Named::directory);

    // With a command, signals are handled by the thread that waits for it.
    let signalled = if plan.command.is_empty() { catch_signals(named.is_none())? } else { Arc::default() };
    let mut next_output = next_output(named, !plan.command.is_empty(), &signalled)?;

    let facts = host::facts();
    load_error::check_memory(&facts, plan.ring_size)?;
    // Started early, so that it is ready by the time the programs are loaded.
    let containers = Reader::start(plan.sandbox)?;
    let mut storage = [MaybeUninit::uninit(), MaybeUninit::uninit()];
    let config = TracerConfig {
        filter: program,
        events: plan.events,
        dns: plan.dns,
        at_start: plan.at_start,
        ring_size: plan.ring_size,
        probes: plan.probes,
        verbose: plan.verbose,
        capabilities: facts.capabilities,
        follow: !plan.command.is_empty(),
    };
    let started = Tracer::start(config, &mut storage);
    if plan.verbose {
        messages::log(&mut stderr(), &tracer::take_log());
    }
    let mut tracer =
        started.map_err(|error| load_error::explain(error, &facts, plan.probes, plan.ring_size))?;
    let machine = Machine::new(tracer.image_check()?, containers);
    let existing = ExistingSockets::read(&mut tracer, &machine)?;
    let deadline = plan.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let mut stop = Stop::new(signalled, deadline, plan.count);
    if plan.at_start == AtStart::PrintOnly {
        stop = stop.no_wait();
    }
    let mut sink = sink(args, &plan, host::all_capabilities(), &output)?;
    let mut output = Writer::new(output.fd);
    if plan.at_start != AtStart::PrintOnly {
        host::ready::tell(args.ready_fd)?;
    }
    let started = if plan.command.is_empty() {
        None
    } else {
        announce(&plan, &tracer);
        Some(command::start(&plan.command, named.is_none())?)
    };
    let running = confine(&plan, &tracer, started, directory)?;
    match &running {
        Some(running) => stop = stop.after(running.ended()),
        None => announce(&plan, &tracer),
    }
    tracer::release_memory();
    let session = Session {
        source: &mut tracer,
        host: &machine,
        sink: &mut *sink,
        output: &mut output,
        next_output: &mut next_output,
        stop,
        existing,
        asked: Default::default(),
        rules: filter.rule_names(),
        dns: DnsTracker::default(),
        dns_filter: DnsFilter::new(filter),
    };
    let traced = session.run().and_then(|summary| sum_up(&plan, &summary, &mut output));
    let Some(running) = running else { return traced.map(|()| ExitCode::SUCCESS) };
    if let Err(error) = &traced {
        messages::line(&mut stderr(), &format!("{error:#}"));
    }
    let code = running.wait()?;
    Ok(if traced.is_ok() { ExitCode::from(code) } else { ExitCode::FAILURE })
}

/// Opens the output.
fn open(args: &Args) -> Result<Output> {
    Target {
        path: args.output.as_deref(),
        beside_command: !args.command.is_empty(),
        replace: args.snapshot && args.format == Format::Odr,
        header: output::header(args.format),
        invoker: host::invoker(),
    }
    .open()
}

/// The plan of this run, which depends on whether the output is a terminal.
fn plan(args: &Args, output: &OwnedFd) -> Plan {
    let environment = Environment {
        output_is_terminal: output.is_terminal(),
        no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
    };
    Plan::new(args, environment)
}

/// The sink of the format. `all_capabilities`: all capabilities of the kernel that recorded the events.
fn sink(args: &Args, plan: &Plan, all_capabilities: u64, output: &Output) -> Result<Box<dyn Sink>> {
    let options = output::Options {
        color: plan.color,
        utc: plan.utc,
        all_capabilities,
        community_id: args.community_id,
        has_header: output.has_header,
        one_document: plan.at_start == AtStart::PrintOnly,
    };
    let format = (!plan.summary_only).then_some(plan.format);
    output::sink(format, options, || metadata(&plan.envelope), &output.fd)
}

/// Prints recordings without tracing.
fn replay(args: &Args, filter: &Filter) -> Result<ExitCode> {
    let output = open(args)?;
    let plan = plan(args, &output.fd);
    let is_output = |metadata: &Metadata| target::is_regular(&output.fd, metadata);
    let inputs = args.read.iter().map(|path| Input::open(path, is_output)).collect::<Result<Vec<_>>>()?;
    let mut sink = sink(args, &plan, u64::MAX, &output)?;
    let named = output.named.as_ref();
    let directory = named.map(Named::directory);
    let signalled = catch_signals(named.is_none())?;
    let mut next_output = next_output(named, false, &signalled)?;
    let mut output = Writer::new(output.fd);
    if plan.sandbox {
        sandbox::drop_privileges(host::invoker().as_ref(), || true)
            .and_then(|()| sandbox::restrict_files(false, directory))
            .and_then(|()| sandbox::restrict_calls(None, directory))
            .context(NO_SANDBOX)?;
    }
    let progress =
        (!plan.quiet && stderr().is_terminal() && !output.is_terminal()).then(|| Progress::new(&inputs));
    let mut skipped = Skipped::default();
    let replay = Replay {
        filter,
        events: (args.filter.failed || !args.events.is_empty()).then_some(plan.events),
        sink: &mut *sink,
        output: &mut output,
        next_output: &mut next_output,
        stop: Stop::new(signalled, None, plan.count),
        skipped: &mut |file, line, why| skipped.add(&mut stderr(), file, line, why),
        progress,
    };
    let summary = replay.run(inputs)?;
    skipped.total(&mut stderr());
    sum_up(&plan, &summary, &mut output)?;
    Ok(ExitCode::SUCCESS)
}

/// Catches the signals that end a run; the flag is set when one arrives. `hangup`: whether SIGHUP is one of them.
fn catch_signals(hangup: bool) -> Result<Arc<AtomicBool>> {
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM].into_iter().chain(hangup.then_some(SIGHUP)) {
        // With nohup(1), SIGHUP stays ignored.
        if signal != SIGHUP || !host::ignores(SIGHUP) {
            flag::register(signal, Arc::clone(&signalled)).context("catch signals")?;
        }
    }
    Ok(signalled)
}

/// Returns a function that reopens the output file after SIGHUP, which means that the file has been renamed. If SIGHUP
/// was sent because our terminal is gone, it ends the run instead, as it does without a file.
fn next_output<'a>(
    named: Option<&'a Named>,
    beside_command: bool,
    signalled: &Arc<AtomicBool>,
) -> Result<impl FnMut() -> Option<OwnedFd> + use<'a>> {
    let (asked, signalled) = (Arc::new(AtomicBool::new(false)), Arc::clone(signalled));
    let ignored = host::ignores(SIGHUP);
    // If it were caught, the command would no longer ignore it.
    if named.is_some() && !(ignored && beside_command) {
        flag::register(SIGHUP, Arc::clone(&asked)).context("catch SIGHUP")?;
    }
    let terminals = || [stdin().is_terminal(), stderr().is_terminal()];
    let at_start = terminals();
    Ok(move || {
        let named = named.filter(|_| asked.swap(false, Ordering::Relaxed))?;
        if !ignored && terminals() != at_start {
            signalled.store(true, Ordering::Relaxed);
            return None;
        }
        let next = named.reopen();
        next.inspect_err(|error| {
            messages::line(&mut stderr(), &format!("{error:#}; still writing to the old file"))
        })
        .ok()
    })
}

/// Drops the privileges that only the start needed. The command, if any, was started before with all of them.
fn confine(
    plan: &Plan,
    tracer: &Tracer<'_>,
    command: Option<Started>,
    directory: Option<BorrowedFd<'_>>,
) -> Result<Option<Running>> {
    tracer::raise_priority();
    let pid = command.as_ref().map(Started::pid).transpose()?;
    if plan.sandbox {
        sandbox::drop_privileges(host::invoker().as_ref(), || tracer.reads_maps())
            .and_then(|()| sandbox::restrict_files(pid.is_some(), directory))
            .context(NO_SANDBOX)?;
    }
    let running = command.map(Started::keep).transpose()?;
    if plan.sandbox {
        sandbox::restrict_calls(pid, directory).context(NO_SANDBOX)?;
    }
    Ok(running)
}

/// Context of an error in setting up the sandbox.
const NO_SANDBOX: &str = "drop privileges (--no-sandbox keeps them)";

/// Prints notes and the ready line.
fn announce(plan: &Plan, tracer: &Tracer<'_>) {
    if plan.at_start == AtStart::PrintOnly {
        tracer.notes().iter().for_each(|note| messages::line(&mut stderr(), note));
    } else if !plan.quiet {
        let program = plan.command.first().map(|program| program.as_os_str());
        let set = tracer.probe_set();
        let notes: Vec<String> = set.note(plan.verbose).into_iter().chain(tracer.notes().to_vec()).collect();
        messages::ready(&mut stderr(), set.name(), &notes, program);
    }
}

/// Prints the summary and reports losses.
fn sum_up(plan: &Plan, summary: &Summary, output: &mut Writer<OwnedFd>) -> Result<()> {
    if plan.summary_only {
        let text = match plan.format {
            Format::Json => summary_render::json(summary) + "\n",
            Format::Table | Format::Csv | Format::Odr => {
                summary_render::text(summary, output::line_width(output.fd()), "")
            }
        };
        output.buffer().extend_from_slice(text.as_bytes());
        output.flush(|stalled| stalled >= STALLED).context("write the summary")?;
    }
    let quiet = plan.quiet || plan.summary_only || plan.at_start == AtStart::PrintOnly;
    if plan.verbose {
        messages::figures(&mut stderr(), summary);
    }
    messages::summary(&mut stderr(), summary, quiet, output::line_width(stderr()));
    Ok(())
}

fn metadata(args: &OdrArgs) -> output::Metadata {
    output::Metadata {
        agent_id: args.agent_id.clone().or_else(host::machine_id).unwrap_or_else(host::name),
        agent_type: args.agent_type.clone(),
        project: args.project.clone(),
        source: host::name(),
        expiration: args.expiration.counted_from(SystemTime::now()),
    }
}
