//! Hidden: becomes another program, after making sure that it dies with the one that started it.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let parent = getppid();
    // No core dump: the environment may hold a credential.
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, no_core).and_then(|()| set_parent_process_death_signal(Some(Signal::KILL))) {
        return fail(&format!("the server could not be tied to this gateway: {error}"));
    }
    // The parent may have died before it was tied.
    if getppid() != parent {
        return fail("the gateway has ended");
    }
    let Some((program, rest)) = arguments.command.split_first() else { return fail("no command") };
    let error = Command::new(program).args(rest).exec();
    fail(&format!("`{program}` could not be started: {error}"))
}

fn fail(text: &str) -> ExitCode {
    use std::io::Write;
    drop(writeln!(std::io::stderr(), "error: {text}"));
    ExitCode::from(127)
}
