//! `demo`: sandbox, proxy and three tenants on loopback, with nothing to configure.
//!
//! It puts the parts together, shows how they stand once a second and takes them apart again; the
//! callers are in `demo/callers.rs`, the words in `demo/board.rs`. Everything runs in this process
//! with a store in memory, so that nothing is left behind. No log is written: it would tear the
//! table.

mod board;
mod callers;

use std::io;
use std::time::Duration;

use anyhow::Context as _;

use super::{Console, FAILURE, OK, block_on};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{self, Config, Mistakes, ServeFlags, Sources, settings, values};
use crate::engine::{ApiKeyName, ClientName, Mono, TenantName};
use crate::lifecycle::Signals;
use crate::sandbox::{OAuthClient, Options, Sandbox, Window};
use crate::secret::Secret;
use crate::store::{NewGrant, TenantScope, Tokens};

use board::{Board, Screen, Welcome};
use callers::{APPETITES, Callers};

/// The application that the sandbox knows; it has no secret, which would have to be in a file.
const CLIENT_ID: &str = "demo-application";
/// The name that the settings give to a single API key.
const API_KEY: &str = "default";
/// A day so large that only the second shapes what is seen in some minutes: the day's pace would
/// make bulk calls of a standard key stop after as few.
const PER_DAY: u64 = 1_000_000;
/// Time between two drawings on a terminal.
const REDRAWN_EVERY: Duration = Duration::from_secs(1);
/// Time between two blocks where nothing can be drawn over.
const WRITTEN_EVERY: Duration = Duration::from_secs(2);

/// The flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// End by itself after this time, such as 20s [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = values::duration)]
    pub run_for: Option<Duration>,
}

/// Runs the demo and gives the exit code.
///
/// # Errors
/// What kept it from running.
pub fn run(args: &DemoArgs, console: &mut Console<'_>) -> anyhow::Result<u8> {
    block_on(async {
        let mut signals = Signals::listen().context("could not listen to signals")?;
        let stage = Stage::set().await?;
        let shown = stage.show(args, console, &mut signals).await;
        let board = tokio::select! {
            board = stage.strike() => board,
            () = signals.stop() => return Ok(FAILURE),
        };
        shown?;
        console.print(&board.summary())?;
        Ok(OK)
    })
}

/// All that runs.
struct Stage {
    clock: Clock,
    sandbox: Sandbox,
    app: App,
    callers: Callers,
    welcome: Welcome,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        let clock = Clock::system();
        let sandbox = Sandbox::start(sandbox_options(), clock.clone())
            .await
            .context("could not start the sandbox")?;
        let app = App::start(proxy_config(&sandbox)?, clock.clone()).await?;
        for (place, appetite) in APPETITES.iter().enumerate() {
            // the first of them is refreshed before its first call goes
            connect(&app, &sandbox, appetite.tenant, place == 0).await?;
        }
        let name = ClientName::new("demo").expect("the constant is a name");
        let (key, _) = app.clients().add(name, TenantScope::All, None).await?;
        let welcome = Welcome {
            data: format!("http://{}", app.data_address()),
            admin: format!("http://{}", app.admin_address()),
            sandbox: sandbox.url(),
            client_key: Secret::from(key.expose()),
        };
        let callers = Callers::start(&welcome.data, &welcome.client_key, &clock);
        Ok(Self { clock, sandbox, app, callers, welcome })
    }

    /// Shows how things stand until the time is over or a signal comes.
    async fn show(
        &self,
        args: &DemoArgs,
        console: &mut Console<'_>,
        signals: &mut Signals,
    ) -> io::Result<()> {
        console.print(&self.welcome.text())?;
        let every = if console.redraws { REDRAWN_EVERY } else { WRITTEN_EVERY };
        let end = args.run_for.map(|span| self.clock.now().mono.plus(span));
        let mut screen = Screen::new(console.redraws);
        let mut next = self.clock.now().mono;
        loop {
            next = next.plus(every);
            let is_last = end.is_some_and(|end| end <= next);
            let wake: Mono = end.map_or(next, |end| end.min(next));
            tokio::select! {
                () = self.clock.sleep_until(wake) => {}
                () = signals.stop() => return Ok(()),
            }
            screen.show(console, &self.board().await)?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn board(&self) -> Board {
        let name = ApiKeyName::new(API_KEY).expect("the constant is a name");
        let gate = self.app.gate().api_key(&name).expect("the only API key stays configured");
        Board::new(
            self.clock.now(),
            &self.callers.tallies(),
            gate.snapshot().await.as_ref(),
            &gate.tenants().await,
            &self.app.tokens().list().await,
            &self.sandbox.log(),
        )
    }

    /// Ends everything, the callers first, and tells how it was.
    async fn strike(self) -> Board {
        let board = self.board().await;
        self.callers.stop().await;
        self.app.stop().await;
        self.sandbox.shutdown().await;
        board
    }
}

/// A standard API key's limit per second, counted in the strictest way.
fn sandbox_options() -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        window: Window::Sliding,
        per_day: PER_DAY,
        clients: vec![OAuthClient::new(CLIENT_ID, None)],
        ..Options::default()
    }
}

/// What `serve` would be told; the environment of this process has no say.
fn proxy_config(sandbox: &Sandbox) -> Result<Config, Mistakes> {
    let flags = ServeFlags::default()
        .with(&settings::LISTEN, "127.0.0.1:0")
        .with(&settings::ADMIN_LISTEN, "127.0.0.1:0")
        .with(&settings::DRAIN_TIMEOUT, "5s")
        .with(&settings::UPSTREAM_URL, sandbox.url())
        .with(&settings::TOKEN_URL, sandbox.token_url())
        .with(&settings::PER_DAY, PER_DAY.to_string())
        .with(&settings::STORE, "memory:")
        .with(&settings::CLIENT_ID, CLIENT_ID);
    let sources = Sources { flags: &flags, env: &|_| None, file: None };
    config::load(&sources).map(|loaded| loaded.config)
}

async fn connect(app: &App, sandbox: &Sandbox, name: &str, expired: bool) -> anyhow::Result<()> {
    let granted = if expired {
        sandbox.connect_expired_tenant(CLIENT_ID, name)
    } else {
        sandbox.connect_tenant(CLIENT_ID, name)
    };
    let grant = NewGrant {
        tenant: TenantName::new(name).expect("the constants are names"),
        api_key: ApiKeyName::new(API_KEY).expect("the constant is a name"),
        tokens: Tokens {
            access: Some(Secret::new(granted.access_token)),
            access_expires_at: None,
            refresh: Secret::new(granted.refresh_token),
        },
        weight: None,
    };
    app.tokens().put(grant).await?;
    Ok(())
}
