//! The command line: what can be typed, and one file per command.
//!
//! [`run`] gives the exit code: 0 done, 1 failed, 2 mistakes in the configuration or on the command
//! line. Commands hold no logic that a library call could hold. Nothing printed here ever holds a
//! secret, but for the key of a new client and a new encryption key, which were asked for.

pub mod admin_client;
pub mod check;
pub mod client;
mod console;
pub mod demo;
pub mod key;
pub mod keygen;
mod progress;
pub mod sandbox;
pub mod serve;
pub mod status;
pub mod store;
mod table;
pub mod tenant;
pub mod token;

use std::future::Future;
use std::io;

use anyhow::Context as _;

use crate::clock::Clock;
use crate::config::{Mistakes, ServeFlags};

pub use console::Console;

/// Exit code: done.
pub const OK: u8 = 0;
/// Exit code: failed.
pub const FAILURE: u8 = 1;
/// Exit code: the configuration or the command line is wrong.
pub const MISTAKE: u8 = 2;

/// One place through which all calls of a company to the Constant Contact API go: it keeps their
/// tokens fresh and their rates within the limits
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "ctct-proxy", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Run the proxy
    ///
    /// Every setting has a flag, an environment variable and a key in the file; flags win over
    /// environment, over file, over defaults. An empty variable counts as unset. Relative paths are
    /// relative to the working directory.
    Serve(ServeFlags),
    /// Try it: sandbox, proxy and three tenants on loopback, nothing to configure
    Demo(demo::DemoArgs),
    /// Run the stand-in for the Constant Contact API alone
    Sandbox(sandbox::SandboxArgs),
    /// Check the configuration and print it, secrets as ***; exit code 0 or 2
    Check(ServeFlags),
    /// Show API keys, queues, day budgets and tenants of a running proxy
    Status(status::StatusArgs),
    /// Manage the tenants of a running proxy
    #[command(subcommand)]
    Tenant(tenant::TenantCommand),
    /// Manage the clients of a running proxy
    #[command(subcommand)]
    Client(client::ClientCommand),
    /// Show or rotate the encryption key of a running proxy
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Copy a store
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// Look into a token
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Print a new encryption key: 32 random bytes in base64
    Keygen,
}

/// Does what `cli` says, reports what went wrong and gives the exit code.
pub fn run(cli: &Cli, console: &mut Console<'_>) -> u8 {
    match dispatch(&cli.command, console) {
        Ok(code) => code,
        Err(error) if error.is::<Mistakes>() => {
            console.remark(&error.to_string());
            MISTAKE
        }
        // whoever read the output has read enough
        Err(error) if is_broken_pipe(&error) => OK,
        Err(error) => {
            console.remark(&format!("error: {error:#}"));
            FAILURE
        }
    }
}

fn dispatch(command: &Command, console: &mut Console<'_>) -> anyhow::Result<u8> {
    match command {
        Command::Serve(flags) => serve::run(flags, console),
        Command::Demo(args) => demo::run(args, console),
        Command::Sandbox(args) => sandbox::run(args, console),
        Command::Check(flags) => check::run(flags, console),
        Command::Status(args) => block_on(status::run(args, console)).map(|()| OK),
        Command::Tenant(command) => block_on(tenant::run(command, console)),
        Command::Client(command) => block_on(client::run(command, console)),
        Command::Key(command) => block_on(key::run(command, console)),
        Command::Store(command) => block_on(store::run(command, console)),
        Command::Token(command) => token::run(command, console, Clock::system().now().unix),
        Command::Keygen => keygen::run(console),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("could not start the runtime")?.block_on(work)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
