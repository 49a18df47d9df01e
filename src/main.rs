//! The program: parse, dispatch, exit code. Everything else is in the library.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap::Parser as _;

use ctct_proxy::cli::{self, Cli, Console};
use ctct_proxy::config::process_env;

/// Gives memory back to the system after a burst of calls.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // not locked for the life of the program: other threads write log lines
    let (mut input, mut out, mut err) = (io::stdin().lock(), io::stdout(), io::stderr());
    let mut console = Console {
        input: &mut input,
        out: &mut out,
        err: &mut err,
        env: &process_env,
        interactive: io::stdin().is_terminal(),
        redraws: io::stdout().is_terminal(),
        watched: io::stderr().is_terminal(),
    };
    ExitCode::from(cli::run(&cli, &mut console))
}
